/** Traces as a collector of OpenTelemetry receives them: of sessions whose workers were killed, or whose API was. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { spanIdOf } from '../../src/trace.ts'
import type { Span } from '../../src/engine/spans.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { startReceiver, status, type Receiver } from '../support/receiver.ts'
import { eventually } from '../support/wait.ts'

let receiver: Receiver
let farm: Farm
beforeAll(async () => {
  receiver = await startReceiver()
  const settings = { DARKROOM_TRACES: `${receiver.url}/`, DARKROOM_TRACES_HEADERS: 'authorization=Bearer abc' }
  farm = await startFarm({ apis: 1, workers: 2, fake: ['--call-ms', '20'], checkpointCalls: 1, settings })
}, 60_000)
afterAll(async () => {
  await farm?.[Symbol.asyncDispose]()
  await receiver?.[Symbol.asyncDispose]()
}, 60_000)

interface Exported {
  resourceSpans: { resource: { attributes: unknown[] }; scopeSpans: { spans: Span[] }[] }[]
}
const spans = (): Span[] =>
  receiver.letters.flatMap(({ body }) =>
    (JSON.parse(body) as Exported).resourceSpans.flatMap(({ scopeSpans }) => scopeSpans.flatMap((scope) => scope.spans)),
  )
const spansOfTrace = (traceId: string): Span[] => [
  ...new Map(spans().flatMap((span) => (span.traceId === traceId ? [[span.spanId, span] as const] : []))).values(),
]
const attribute = (span: Span | undefined, key: string): unknown =>
  Object.values(span?.attributes.find((each) => each.key === key)?.value ?? {})[0]
const submit = async (seed: number, headers: Record<string, string> = {}): Promise<string> => {
  const body = { workflow: 'image-generation', input: { prompt: 'x', width: 64, height: 64, steps: 12, seed } }
  return (await farm.client.request('POST', '/v1/sessions', { body, headers })).json.id as string
}
/** Kills the worker that draws it, and starts another in its place. */
async function killDrawer(id: string): Promise<void> {
  const { worker } = (await farm.history(id)).findLast(({ type, step }) => type === 'step.started' && step === 'inference.denoise') ?? {}
  const records = await farm.records()
  const at = records.find((record) => record.id === worker)
  const victim = farm.workers.find(({ pid }) => pid === at?.pid)
  if (!victim) throw new Error(`nobody draws ${id}`)
  await victim.kill()
  await victim.start()
}

it('one trace holds all of a session that was killed twice, under the span that asked for it', { timeout: 120_000 }, async () => {
  const traceId = '0af7651916cd43dd8448eb211c80319c'
  const open = await farm.gate(901, 4)
  const id = await submit(901, { traceparent: `00-${traceId}-b7ad6b7169203331-01` })
  expect((await farm.client.get(`/v1/sessions/${id}`)).json.traceId).toBe(traceId)
  await farm.untilCall(id, 4)
  await killDrawer(id)
  await eventually('another draws it', async () => {
    const attempts = (await farm.history(id)).filter(({ type, step }) => type === 'step.started' && step === 'inference.denoise')
    return attempts.length === 2
  })
  await killDrawer(id)
  await open()
  await farm.pictures(id)
  const told = await eventually('the trace', async () => {
    const found = spansOfTrace(traceId)
    return found.some(({ spanId }) => spanId === spanIdOf(id)) && found
  })
  const whole = told.find(({ spanId }) => spanId === spanIdOf(id))
  expect(whole).toMatchObject({ parentSpanId: 'b7ad6b7169203331', name: 'image-generation@1', status: { code: 1 } })
  const history = await farm.history(id)
  // A span for each attempt that was ever begun, each below the session's and within its time.
  const begun = history.filter(({ type }) => type === 'step.started').map(({ attemptId }) => spanIdOf(String(attemptId)))
  const attempts = told.filter((span) => span !== whole)
  expect(attempts.map(({ spanId }) => spanId).toSorted()).toEqual(begun.toSorted())
  for (const span of attempts) {
    expect(span.parentSpanId).toBe(whole?.spanId)
    expect(BigInt(span.startTimeUnixNano)).toBeGreaterThanOrEqual(BigInt(whole?.startTimeUnixNano ?? 0))
    expect(BigInt(span.endTimeUnixNano)).toBeLessThanOrEqual(BigInt(whole?.endTimeUnixNano ?? 0))
  }
  const denoised = attempts.filter(({ name }) => name === 'inference.denoise')
  expect(denoised.map((span) => attribute(span, 'darkroom.end'))).toEqual(['lost', 'lost', 'completed'])
  // Log lines about its steps name it, such as those of the leases that were lost, whoever found them.
  const logged = [...farm.apis, ...farm.workers].map((each) => each.lastWords(100)).join('\n')
  expect(logged).toContain(`"trace":"${traceId}"`)
  expect(receiver.letters.every(({ path, headers }) => path === '/v1/traces' && headers.authorization === 'Bearer abc')).toBe(true)
})

it(
  'a collector that is away, and an API that is killed meanwhile, lose no trace; a refusal for good holds up no other',
  { timeout: 120_000 },
  async () => {
    receiver.answers(status(503))
    const id = await submit(902)
    await farm.pictures(id)
    const tried = receiver.letters.length
    await eventually('it was tried', () => Promise.resolve(receiver.letters.length > tried))
    const [api] = farm.apis
    await api?.kill()
    await api?.start()
    receiver.letters.length = 0
    receiver.answers(status(200))
    const { traceId } = (await farm.client.get(`/v1/sessions/${id}`)).json as { traceId: string }
    await eventually('its trace', () => Promise.resolve(spansOfTrace(traceId).some(({ spanId }) => spanId === spanIdOf(id))))

    receiver.answers(status(400))
    const refused = await submit(903)
    await farm.pictures(refused)
    const before = receiver.letters.length
    await eventually('it was refused', () => Promise.resolve(receiver.letters.length > before))
    receiver.answers(status(200))
    const next = await submit(904)
    await farm.pictures(next)
    const other = (await farm.client.get(`/v1/sessions/${next}`)).json.traceId as string
    const [span] = await eventually('the next trace', () => Promise.resolve(spansOfTrace(other).length > 0 && spansOfTrace(other)))
    expect(span?.traceId).toBe(other)
  },
)
