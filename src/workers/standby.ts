/** A worker that stands by: what takes long of its start is done, and it joins the farm when its turn comes. */
import type { Config } from '../config.ts'
import type { Logger } from '../log.ts'
import { Ticker } from '../ticker.ts'
import { systemRam } from './device/ram.ts'
import type { PythonChild } from './python/supervisor.ts'

/** Pause between two looks at the free RAM, ms. */
const lookMs = 1000

/** Whether `free` bytes of RAM allow a spare Python child: one that is there goes below half of what it needed. */
export function allowsSpare({ spareMb }: Config, child: PythonChild, free: number): boolean {
  const needed = spareMb * 2 ** 20 * (child.spare ? 0.5 : 1)
  return needed > 0 && free >= needed
}

/**
 * Waits for its turn, and begins. Meanwhile it keeps a spare Python child while RAM allows; without one it has its own
 * code loaded, and the child starts with the turn.
 * @throws what `turn` rejects with
 */
export async function standBy(config: Config, child: PythonChild, turn: Promise<void>, log: Logger): Promise<void> {
  const keep = async (): Promise<void> => {
    const { total, used } = systemRam()
    child.keepSpare(allowsSpare(config, child, total - used))
  }
  const looks = new Ticker(lookMs, keep, (error) => log.debug({ err: error }, 'the free RAM was not looked at'))
  looks.start()
  try {
    await turn
  } finally {
    await looks.stop()
  }
  child.begin()
}
