/**
 * `npm run soak [-- --minutes N]`: as much as the machine can do, for ten minutes or as long as asked, and nothing is
 * killed. No attempt may lose its lease: a worker that loses one was alive, only busy. Exits 1 when one did, or a
 * session did not end as it should.
 */
import { readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { productTimes } from '../src/engine/times.ts'
import type { Session } from '../src/client/index.ts'
import { startFarm, type Farm } from '../test/support/farm.ts'
import { step } from '../test/support/program.ts'
import { inputOf, module } from '../test/support/scripted.ts'
import { sleep } from '../test/support/wait.ts'
import { send } from '../test/support/http.ts'
import { describeMachine } from './machine.ts'

const say = (line: string): void => void process.stdout.write(`${line}\n`)

/** Sessions under way at a time, by kind: what a client sends, by its number. */
const kinds: Record<string, { abreast: number; body: (n: number, farm: Farm) => Record<string, unknown> }> = {
  // Steps of no work: they keep API, Redis and workers as busy as they can be.
  short: { abreast: 24, body: (n, farm) => ({ workflow: 'program', input: inputOf(farm, step({ n })) }) },
  // Steps that outlive several leases.
  long: { abreast: 16, body: (n, farm) => ({ workflow: 'program', input: inputOf(farm, step({ n, ms: 6000 + ((n * 977) % 9000) })) }) },
  picture: {
    abreast: 6,
    body: (n) => ({ workflow: 'image-generation', input: { prompt: 'a red circle', seed: n % 1000, steps: 40 + ((n * 37) % 110) } }),
  },
}

interface Count {
  ended: number
  attempts: number
  lost: number
  wrong: string[]
}

/** Runs a session to its end, counts its attempts, and removes it. */
async function runOne(farm: Farm, body: Record<string, unknown>, count: Count): Promise<void> {
  const url = farm.client.url
  const submitted = await send(url, 'POST', '/v1/sessions', { body, headers: { Prefer: 'wait=60' } })
  const { id } = submitted.json as Session
  let { status } = submitted.json as Session
  while (status === 'queued' || status === 'running') {
    await delay(200)
    ;({ status } = (await send(url, 'GET', `/v1/sessions/${id}`)).json as Session)
  }
  const history = await farm.history(id)
  count.ended++
  count.attempts += history.filter(({ type }) => type === 'step.started').length
  count.lost += history.filter(({ type }) => type === 'step.recovered').length
  if (status !== 'succeeded') count.wrong.push(`${id} ${status}`)
  await send(url, 'DELETE', `/v1/sessions/${id}`)
}

/** Seconds that the processor did nothing, of all cores together. */
function idleS(): number {
  const [, , , idle = 0, wait = 0] = (readFileSync('/proc/stat', 'utf8').split('\n')[0] ?? '').split(/\s+/).slice(1).map(Number)
  return (idle + wait) / 100
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { minutes: { type: 'string', default: '10' } } })
  const minutes = Number(values.minutes)
  if (!(minutes > 0)) throw new Error(`--minutes: must be a number above 0, not ${JSON.stringify(values.minutes)}`)
  const machine = await describeMachine()
  say(`${machine.cpu}, ${machine.cores} cores, ${machine.memoryGB} GB, load average ${machine.loadAverage.join(' ')}`)
  await using farm = await startFarm({
    times: productTimes,
    workers: 2,
    module,
    settings: { DARKROOM_HOST_LANE: '16' },
    fake: ['--call-ms', '20'],
  })
  const until = performance.now() + minutes * 60_000
  const [from, idleFrom] = [performance.now(), idleS()]
  const counts = new Map(Object.keys(kinds).map((kind) => [kind, { ended: 0, attempts: 0, lost: 0, wrong: [] } as Count]))
  const total = (of: 'ended' | 'attempts' | 'lost'): number => [...counts.values()].reduce((sum, count) => sum + count[of], 0)
  const seconds = (): number => (performance.now() - from) / 1000
  const report = setInterval(() => {
    const each = [...counts].map(([kind, { ended }]) => `${kind} ${ended}`).join(', ')
    say(`${Math.round(seconds())} s: ${each}; ${total('attempts')} attempts, ${total('lost')} lost their lease`)
  }, 60_000)
  await Promise.all(
    Object.entries(kinds).flatMap(([kind, { abreast, body }]) =>
      Array.from({ length: abreast }, async (_, lane) => {
        const count = counts.get(kind)
        for (let n = lane; count && performance.now() < until; n += abreast) await runOne(farm, body(n, farm), count)
      }),
    ),
  )
  clearInterval(report)
  const busy = 1 - (idleS() - idleFrom) / (seconds() * machine.cores)
  const wrong = [...counts.values()].flatMap((count) => count.wrong)
  say(
    `${total('ended')} sessions, ${total('attempts')} attempts in ${(seconds() / 60).toFixed(1)} minutes; processors ${Math.round(busy * 100)} % busy`,
  )
  say(
    `${total('lost')} attempts of living workers lost their lease; ${wrong.length} sessions did not succeed ${wrong.slice(0, 5).join(', ')}`,
  )
  if (busy < 0.8) throw new Error('void: that was no full load')
  if ([...counts.values()].some(({ ended }) => ended === 0)) throw new Error('void: of one kind no session ended')
  if (total('lost') > 0 || wrong.length > 0) process.exitCode = 1
  await sleep(1000)
}

await main().catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`)
  process.exitCode = 2
})
