/**
 * `models.scanS`, `models.restartS`, `models.seenS`, `models.searchP99Ms`, `models.apiMemoryMb`: a tree of 10,000 model
 * files, from the start of an API's catalogue on an empty index and on a full one; a new file and a changed one until
 * HTTP shows them, the later of the two; pages and searches over HTTP; and what the API then holds of RAM beyond what
 * it held beside an empty folder.
 */
import { appendFile, copyFile, mkdtemp, readFile, rm } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { productTimes } from '../src/engine/times.ts'
import { startFarm, type Farm } from '../test/support/farm.ts'
import { writeTree } from '../test/support/model-tree.ts'
import { eventually } from '../test/support/wait.ts'
import { figure, type Benchmark } from './figure.ts'
import { timed } from './http.ts'
import { quantile, rounded } from './statistics.ts'

const files = 10_000
const requests = 300
const queries = ['limit=100', 'limit=100&text=model-77', 'limit=50&kind=lora&text=7', 'limit=100&status=broken', 'limit=100&family=sd1']

interface Page {
  models: unknown[]
  total: number
}

const total = async (farm: Farm, query = 'limit=1'): Promise<number> =>
  (JSON.parse((await timed(`${farm.client.url}/v1/models?${query}`, 'GET', 200)).text) as Page).total

/** Seconds from when an API is started until it lists so many; the process's own start is not in it. */
async function listed(farm: Farm, count: number): Promise<number> {
  await farm.addApi()
  const from = performance.now()
  const api = farm.apis.at(-1)
  if (!api) throw new Error('void: no API')
  const { url } = farm.clientOf(api)
  await eventually(
    `${count} models are listed`,
    async () => (JSON.parse((await timed(`${url}/v1/models?limit=1`, 'GET', 200)).text) as Page).total >= count,
    120_000,
  )
  return (performance.now() - from) / 1000
}

/** MB that an API holds of RAM once it has answered some requests and has come to rest: the least of some seconds. */
async function memoryMb(farm: Farm): Promise<number> {
  for (let i = 0; i < 100; i++) await total(farm)
  const held: number[] = []
  for (let i = 0; i < 20; i++) {
    await delay(500)
    const status = await readFile(`/proc/${farm.apis[0]?.pid}/status`, 'utf8')
    held.push((Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024) / 1e6)
  }
  return Math.min(...held)
}

export const models: Benchmark = {
  figures: ['models.scanS', 'models.restartS', 'models.seenS', 'models.searchP99Ms', 'models.apiMemoryMb'],
  async measure(say) {
    const folder = await mkdtemp(join(tmpdir(), 'darkroom-tree-'))
    try {
      await using farm = await startFarm({ times: productTimes, apis: 0, workers: 0, settings: { DARKROOM_MODELS: folder } })
      await listed(farm, 0)
      const emptyMb = await memoryMb(farm)
      await farm.apis[0]?.stop(8000)
      farm.apis.length = 0
      const first = await writeTree(folder, files)
      const scanS = await listed(farm, files)
      say(`${files} files of ${await total(farm)} models in ${rounded(scanS)} s`)
      await farm.apis[0]?.stop(8000)
      farm.apis.length = 0
      const restartS = await listed(farm, files)
      const seen = join(folder, 'loras', 'seen-at-once.safetensors')
      const secondsUntil = async (query: string, act: () => Promise<unknown>): Promise<number> => {
        const from = performance.now()
        await act()
        await eventually(`${query} is listed`, async () => (await total(farm, query)) === 1)
        return (performance.now() - from) / 1000
      }
      const newS = await secondsUntil('text=seen-at-once&kind=lora', () => copyFile(first, seen))
      const changedS = await secondsUntil('text=seen-at-once&status=broken', () => appendFile(seen, 'more'))
      const seenS = Math.max(newS, changedS)
      const times: number[] = []
      for (let i = -20; i < requests; i++) {
        const { ms } = await timed(`${farm.client.url}/v1/models?${queries[Math.abs(i) % queries.length]}`, 'GET', 200)
        if (i >= 0) times.push(ms)
      }
      const apiMemoryMb = (await memoryMb(farm)) - emptyMb
      return [
        figure('models.scanS', scanS, 's', { atMost: 15 }),
        figure('models.restartS', restartS, 's', { atMost: 1 }),
        figure('models.seenS', seenS, 's', { atMost: 2 }),
        figure('models.searchP99Ms', quantile(times, 0.99), 'ms', { atMost: 50 }),
        figure('models.apiMemoryMb', apiMemoryMb, 'MB', { atMost: 100 }),
      ]
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  },
}
