/**
 * Whether the Redis at hand is the index of this artifact store: the one that knows all sessions, and so what pictures
 * are named. An empty Redis, another farm's or an old backup names too few, and on its word the collector would remove
 * the pictures of living sessions.
 *
 * Both sides carry two marks. The store's id says that they belong together. The count of the collector's turns grows
 * in Redis with each turn; the store keeps the count of the turn before, ten minutes old and long on the disk, so a
 * Redis that counts no further than that has gone back in time.
 */
import { readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { artifactError } from '../errors.ts'
import { keys } from '../keys.ts'
import { translated, type Redis } from '../redis.ts'

/** The store's side: `<folder>/index-turn`, there as soon as a Redis has indexed this store. */
export class IndexMark {
  readonly file: string

  constructor(folder: string) {
    this.file = join(folder, 'index-turn')
  }

  /** The last turn that the store knows; undefined when no Redis has indexed it yet. */
  async read(): Promise<number | undefined> {
    const text = await readFile(this.file, 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return undefined
      throw error
    })
    return text === undefined ? undefined : Number(text)
  }

  async write(turn: number): Promise<void> {
    await writeFile(`${this.file}.part`, String(turn), { mode: 0o600 })
    await rename(`${this.file}.part`, this.file)
  }
}

/** An artifact store, as far as it can be told whose index it has. */
export interface Indexed {
  id(): Promise<string>
  readonly mark: IndexMark
}

/**
 * Every node of a farm must see the same artifacts, and the Redis that indexes them.
 * @throws DarkroomError `artifact.not_shared`, `artifact.index_lost`
 */
export async function checkStore(redis: Redis, artifacts: Indexed): Promise<void> {
  const own = await artifacts.id()
  const seen = await artifacts.mark.read()
  if (seen === undefined) await translated(redis.setnx(keys.storeId(), own))
  await checkIndex(redis, artifacts)
  if (seen === undefined) await artifacts.mark.write(0)
}

/** @throws DarkroomError `artifact.index_lost`, `artifact.not_shared` when this Redis does not index the store now */
export async function checkIndex(redis: Redis, artifacts: Indexed): Promise<void> {
  const [own, farm] = [await artifacts.id(), await translated(redis.get(keys.storeId()))]
  if (farm === null) throw lost(artifacts, 'this Redis does not know them: it is empty, or that of another farm')
  if (farm !== own) throw artifactError('not_shared', `this artifact folder is store ${own}, the farm uses ${farm}`)
}

/**
 * Counts a turn of the collector on both sides.
 * @throws DarkroomError `artifact.index_lost` when Redis counts no further than the store has seen: nothing is counted
 */
export async function countTurn(redis: Redis, artifacts: Indexed): Promise<void> {
  await checkIndex(redis, artifacts)
  const seen = (await artifacts.mark.read()) ?? 0
  const turn = Number(await translated(redis.get(keys.collectorTurns()))) + 1
  if (turn <= seen)
    throw lost(artifacts, `this Redis has gone back to turn ${turn - 1} of the collector, and the store has seen turn ${seen}`)
  await translated(redis.set(keys.collectorTurns(), turn))
  await artifacts.mark.write(Math.max(seen, turn - 1))
}

const lost = ({ mark }: Indexed, why: string): Error =>
  artifactError('index_lost', `the artifacts beside ${mark.file} were indexed by a Redis, and ${why}`, {
    remedy: `Start the Redis with the data of that farm. Only if that is lost for good, remove ${mark.file}: pictures that no session names then go after an hour.`,
  })
