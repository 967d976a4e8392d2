// What one writes by hand in a quick framework of another language: verify, one INSERT, answer 200.
// As durable as the receiver (WAL, `synchronous = FULL`), but there is no mirror, no queue and no
// handler. A statement blocks the event loop: both SQLite libraries are made so.

"use strict";

const cluster = require("node:cluster");
const { createHmac, timingSafeEqual } = require("node:crypto");

const SECRET = process.env.ZIMSEND_WEBHOOK_SECRET;
const DATABASE = process.env.DATABASE_URL.replace("sqlite:///", "");
const PROCESSES = Number(process.env.WEB_CONCURRENCY);

// Node's own SQLite where there is one, from Node 22 on.
const Database =
  process.getBuiltinModule?.("node:sqlite")?.DatabaseSync ?? require("better-sqlite3");

function open() {
  const database = new Database(DATABASE);
  database.exec("PRAGMA busy_timeout = 10000");
  database.exec("PRAGMA journal_mode = WAL");
  database.exec("PRAGMA synchronous = FULL");
  database.exec("CREATE TABLE IF NOT EXISTS received (id TEXT PRIMARY KEY, body BLOB)");
  return database;
}

function verify(body, claimed) {
  const digest = createHmac("sha256", SECRET).update(body).digest();
  const sent = Buffer.from(String(claimed).replace(/^sha256=/, ""), "hex");
  return sent.length === digest.length && timingSafeEqual(sent, digest);
}

function serve() {
  const insert = open().prepare(
    "INSERT INTO received (id, body) VALUES (?, ?) ON CONFLICT DO NOTHING",
  );
  const app = require("fastify")();
  app.addContentTypeParser("application/json", { parseAs: "buffer" }, (request, body, done) =>
    done(null, body), // raw: the signature is over these bytes
  );
  app.post("/webhooks/zimsend", (request, reply) => {
    if (!verify(request.body, request.headers["x-webhook-signature"])) {
      reply.code(401).send();
      return;
    }
    insert.run(JSON.parse(request.body).event_id, request.body); // autocommit: a transaction
    reply.send("");
  });
  app.listen({ host: "127.0.0.1", port: Number(process.env.PORT) });
}

if (PROCESSES > 1 && cluster.isPrimary) {
  open().close(); // before they ask for it at the same moment
  for (let started = 0; started < PROCESSES; started += 1) cluster.fork();
} else {
  serve();
}
