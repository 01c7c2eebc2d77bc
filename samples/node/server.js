// A whole app: it answers on $PORT, and says what it runs with.
const express = require("express");

const app = express();
const greeting = process.env.GREETING || "Hello from your own platform!";

app.get("/", (request, response) => {
  console.log(`visited by ${request.get("user-agent") || "somebody"}`);
  response.type("text").send(`${greeting}\n`);
});

const server = app.listen(process.env.PORT || 5000, () => {
  console.log(`listening on port ${server.address().port}`);
});

// A new release takes over: finish the requests at hand, then go.
process.on("SIGTERM", () => {
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});
