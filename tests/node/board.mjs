// bull-board on Cartwake's queues: `QUEUE_URL=redis://127.0.0.1:6379/0 node board.mjs`, then open the address it prints.
import { createBullBoard } from "@bull-board/api";
import { BullMQAdapter } from "@bull-board/api/bullMQAdapter";
import { ExpressAdapter } from "@bull-board/express";
import { Queue } from "bullmq";
import express from "express";

const { QUEUE_URL, QUEUE_PREFIX = "bull", PORT = "0" } = process.env;
const names = ["cartwake-texts", "cartwake-email", "cartwake-maintenance"];
const queues = names.map((name) => new Queue(name, { connection: { url: QUEUE_URL }, prefix: QUEUE_PREFIX }));

const pages = new ExpressAdapter();
createBullBoard({ queues: queues.map((queue) => new BullMQAdapter(queue)), serverAdapter: pages });
const app = express().use(pages.getRouter()); // no login: on loopback only, or behind your own
const server = app.listen(Number(PORT), "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${server.address().port}`);
});
