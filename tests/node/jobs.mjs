// What a Node program does with Cartwake's jobs, by the official client: `node jobs.mjs COMMAND [ARGUMENT]`.
// QUEUE_URL and QUEUE_PREFIX say where, QUEUE_NAME which queue; the answer is one line of JSON.
import { Queue, Worker } from "bullmq";

const { QUEUE_URL, QUEUE_PREFIX = "bull", QUEUE_NAME = "cartwake-texts" } = process.env;
const [command, argument] = process.argv.slice(2);
const queue = new Queue(QUEUE_NAME, { connection: { url: QUEUE_URL }, prefix: QUEUE_PREFIX });

const told = async (job) =>
  job && {
    id: job.id,
    name: job.name,
    data: job.data,
    delay: job.delay,
    at: job.timestamp + job.delay,
    state: await job.getState(),
    attemptsMade: job.attemptsMade,
    failedReason: job.failedReason ?? null,
  };

const commands = {
  list: async () => Promise.all((await queue.getJobs(["delayed", "waiting", "failed"])).map(told)),
  read: async () => (await told(await queue.getJob(argument))) ?? null,
  workers: async () => queue.getWorkersCount(),
  remove: async () => queue.remove(argument),
  promote: async () => (await queue.getJob(argument)).promote(),
  // Take so many jobs as a sender of e-mail would; how many were under way at a time, and which.
  take: async () => {
    const taken = [];
    let underWay = 0;
    let most = 0;
    await new Promise((done) => {
      const work = async (job) => {
        most = Math.max(most, ++underWay);
        await new Promise((resolve) => setTimeout(resolve, 50));
        underWay--;
        taken.push(job.id);
      };
      const options = { connection: { url: QUEUE_URL }, prefix: QUEUE_PREFIX, concurrency: 100 };
      const worker = new Worker(QUEUE_NAME, work, options);
      worker.on("completed", async () => taken.length === Number(argument) && done(await worker.close()));
    });
    return { taken, most };
  },
  add: async () => {
    const { id, name, data, delay } = JSON.parse(argument);
    return told(await queue.add(name, data, { jobId: id, delay, removeOnComplete: true }));
  },
};

try {
  console.log(JSON.stringify((await commands[command]()) ?? null));
} finally {
  await queue.close();
}
