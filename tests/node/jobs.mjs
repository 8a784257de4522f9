// What a Node program does with Cartwake's jobs, by the official client: `node jobs.mjs COMMAND [ARGUMENT]`.
// QUEUE_URL and QUEUE_PREFIX say where, QUEUE_NAME which queue; the answer is one line of JSON.
import { Queue } from "bullmq";

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
  remove: async () => queue.remove(argument),
  promote: async () => (await queue.getJob(argument)).promote(),
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
