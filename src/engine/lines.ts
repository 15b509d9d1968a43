/** The lines in which sessions wait for a device, in Redis: each act is one script. What they mean: `admission.ts`. */
import { keys, splitStepKey } from '../keys.ts'
import { runScript, type Redis, type ScriptReply } from '../redis.ts'
import { act, type ActParts } from './act.ts'
import { placeInQueue } from './plan.ts'
import type { Status } from './session.ts'
import type { Holder } from './slots.ts'
import { noModel } from './nearness.ts'
import { groupOf, type Choice, type Line, type Shares } from './turns.ts'

/** What a session in a line waits for, in words. */
export const forItsTurn = 'its turn on a device'

/** All shards together; `numbers` are what each had let in so far. */
export interface Standing {
  lines: Line[]
  holders: Holder[]
  shares: Shares
  numbers: number[]
  /** How long a session of a queue takes, ms. */
  paceMs: ReadonlyMap<string, number>
}

/** A step that was let in, with what its job says. */
export interface Admitted {
  stepKey: string
  dispatch: number
  name: string
  priority: number
}

export class Lines {
  readonly #parts: ActParts & { shards: number }

  constructor(parts: ActParts & { shards: number }) {
    this.#parts = parts
  }

  /** Puts an open step in the line of that queue. `admitted`: its session is in, and its job may go to the queue. */
  async join(stepKey: string, dispatch: number, queue: string, model: string): Promise<'ok' | 'admitted' | 'stale'> {
    return (await this.#act('joinLine', stepKey, [dispatch, queue, forItsTurn, model]))[0] as 'ok' | 'admitted' | 'stale'
  }

  /**
   * Lets a step in to a queue: its line's, or that of one worker of it. `numbers`: how many each shard had let in when
   * the lines were read. `conflict`: another process has let one of its shard in since; `stale`: the step is not in
   * that line any more.
   */
  async admit(
    { line, waiter, level, share, floor, overtaken }: Choice,
    queue: string,
    numbers: readonly number[],
  ): Promise<Admitted | 'conflict' | 'stale'> {
    // Those that were let in come in the order in which they were chosen, too, of whatever shard they are.
    const priority = placeInQueue(
      level,
      numbers.reduce((sum, each) => sum + each, 0),
    )
    const args = [line.name, numbers[line.shard] ?? 0, priority, share, floor, queue, overtaken.length, ...overtaken]
    const [is, dispatch, name] = await this.#act('admitStep', waiter.stepKey, args)
    if (is !== 'ok') return is as 'conflict' | 'stale'
    return { stepKey: waiter.stepKey, dispatch: Number(dispatch), name: String(name), priority }
  }

  /** Lines and slots of all shards, of each line the first `heads`; Infinity: all. */
  async read(heads: number): Promise<Standing> {
    const { redis, shards } = this.#parts
    const read = await Promise.all(Array.from({ length: shards }, (_, shard) => readShard(redis, shard, heads)))
    const byKey = new Map<string, number>()
    for (const { shares } of read) for (const [key, share] of shares) byKey.set(key, Math.max(share, byKey.get(key) ?? 0))
    return {
      lines: read.flatMap(({ lines }) => lines),
      holders: read.flatMap(({ holders }) => holders),
      // A share only rises, so the highest is the last one written.
      shares: { floor: Math.max(...read.map(({ floor }) => floor)), byKey },
      numbers: read.map(({ number }) => number),
      paceMs: new Map(read.flatMap(({ paceMs }) => paceMs)),
    }
  }

  /** Puts a step that was let in back into its line, unless a device has begun its session. */
  async withdraw(stepKey: string, queue: string): Promise<boolean> {
    return (await this.#act('withdrawStep', stepKey, [queue, forItsTurn]))[0] === 'ok'
  }

  /**
   * Asks the attempt that runs a step to make way at its next call. False when it does not run there, or was asked
   * before.
   */
  async askYield(stepKey: string, worker: string): Promise<boolean> {
    return (await this.#act('askYield', stepKey, [worker]))[0] === 'ok'
  }

  /** Gives a session another priority, or another time since which it counts as waiting; undefined: as it is. */
  async move(
    id: string,
    priority: number | undefined,
    order: number | undefined,
  ): Promise<{ is: 'ok' | 'missing' } | { is: 'ended'; status: Status }> {
    const [is, status] = await act(this.#parts, 'moveInLine', id, [priority ?? '', order ?? ''])
    return is === 'ended' ? { is, status: status as Status } : { is: is as 'ok' | 'missing' }
  }

  #act(name: 'joinLine' | 'admitStep' | 'withdrawStep' | 'askYield', stepKey: string, args: (string | number)[]): Promise<ScriptReply> {
    const { sessionId, suffix } = splitStepKey(stepKey)
    return act(this.#parts, name, sessionId, [suffix, ...args])
  }
}

interface Shard {
  lines: Line[]
  holders: Holder[]
  shares: [string, number][]
  floor: number
  number: number
  paceMs: [string, number][]
}

async function readShard(redis: Redis, shard: number, heads: number): Promise<Shard> {
  const [, now, ...values] = await runScript(redis, 'readLines', keys.lines(shard), [heads === Infinity ? 0 : heads])
  let at = 0
  const next = (): string => String(values[at++])
  const pairs = (): [string, string][] => Array.from({ length: Number(next()) }, () => [next(), next()])
  const turns = pairs()
  const holders = pairs().map(([stepKey, text]): Holder => {
    const [holder = '', key = '', group = '-', priority = '5', state = '-', model = noModel] = text.split(' ')
    const of = { stepKey, holder, key, group: groupOf(group)?.key ?? null, model }
    return { ...of, priority: Number(priority), state: state as Holder['state'] }
  })
  const lines: Line[] = []
  while (at < values.length) {
    const name = next()
    const [queue = '', priority, key = '', group = '-', model = noModel] = name.split(' ')
    const length = Number(next())
    const head = pairs().map(([stepKey, order]) => ({ stepKey, order: Number(order), waitedMs: Number(now) - Number(order) }))
    lines.push({ name, shard, queue, priority: Number(priority), key, group: groupOf(group), model, length, head })
  }
  const named = (prefix: string): [string, number][] =>
    turns.flatMap(([field, value]): [string, number][] => (field.startsWith(prefix) ? [[field.slice(prefix.length), Number(value)]] : []))
  const one = (field: string): number => Number(turns.find(([name]) => name === field)?.[1] ?? 0)
  return { lines, holders, shares: named('key:'), floor: one('floor'), number: one('number'), paceMs: named('pace:') }
}
