// A whole app: it answers on $PORT, and counts its visits if it has a database.
const express = require("express");
const { Pool } = require("pg");

const app = express();
const greeting = process.env.GREETING || "Hello from your own platform!";
const database = process.env.DATABASE_URL ? new Pool({ connectionString: process.env.DATABASE_URL, max: 4 }) : null;

// Connections that a restart of the database ends are made anew when they are needed.
database?.on("error", (error) => console.error(`database: ${error.message}`));

// Several dynos may do this at once.
const ready = database?.query(`
  BEGIN;
  SELECT pg_advisory_xact_lock(1);
  CREATE TABLE IF NOT EXISTS visits (page text PRIMARY KEY, count bigint NOT NULL);
  COMMIT;
`);

async function count(page) {
  await ready;
  const { rows } = await database.query(
    `INSERT INTO visits VALUES ($1, 1) ON CONFLICT (page) DO UPDATE SET count = visits.count + 1 RETURNING count`,
    [page],
  );
  return rows[0].count;
}

app.get("/", async (request, response) => {
  console.log(`visited by ${request.get("user-agent") || "somebody"}`);
  const visit = database ? `Visit number ${await count("/")}, answered by ${process.env.DYNO}.\n` : "";
  response.type("text").send(`${greeting}\n${visit}`);
});

const server = app.listen(process.env.PORT || 5000, () => {
  console.log(`listening on port ${server.address().port}`);
});

// A new release takes over: finish the requests at hand, then go.
process.on("SIGTERM", () => {
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});
