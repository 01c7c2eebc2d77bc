const version = "0";
const answer = () => `${version} ${process.env.GREETING ?? ""}`;
require("http").createServer((_, response) => response.end(answer())).listen(process.env.PORT);
