/** The commands that show and move the queue, and what was used. */
import type { Command } from 'commander'
import { whole } from './arguments.ts'

/** @param client makes a command that is a client of the API, under another one or as one of the first */
export function addQueueCommands(client: (name: string, summary: string, under?: Command) => Command): void {
  const queue = client('queue', 'show who waits for a device, in the order in which they are let in')
    .enablePositionalOptions()
    .option('--limit <n>', 'how many', whole(1, 1000))
    .action(async (options) => (await import('./queue.ts')).show(options))
  client('front', 'put a waiting session before all others of its API key', queue)
    .argument('<session>')
    .action(async (id: string, options) => (await import('./queue.ts')).move(id, 'front', options))
  client('back', 'put a waiting session behind all others of its API key', queue)
    .argument('<session>')
    .action(async (id: string, options) => (await import('./queue.ts')).move(id, 'back', options))
  client('before', 'put a waiting session directly before another one of its API key', queue)
    .argument('<session>')
    .argument('<other>', 'the session that comes after it then')
    .action(async (id: string, next: string, options) => (await import('./queue.ts')).moveBefore(id, next, options))
  client('priority', 'change the priority of a session', queue)
    .argument('<session>')
    .argument('<n>', '0 to 9', whole(0, 9))
    .action(async (id: string, priority: number, options) => (await import('./queue.ts')).prioritize(id, priority, options))
  const stopping = (verb: 'pause' | 'resume', summary: string): Command =>
    client(verb, summary, queue)
      .option('--device <device>', 'this device alone: its id, or cuda:0')
      .option('--class <key>', 'the devices of this exactness key')
      .action(async (options) => (await import('./queue.ts')).turn(verb, options))
  stopping('pause', 'let nobody in; what runs goes on')
  stopping('resume', 'let sessions in again')
  client('usage', 'show what API keys have used, by day: time on devices and what was lost of it, bytes, cache hits')
    .option('--days <n>', 'how many, today with them; default: 7', whole(1, 31))
    .action(async (options) => (await import('./usage.ts')).show(options))
}
