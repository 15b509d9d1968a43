/** A webhook is told of an end at least once, though the API that tells it, or the one that ended the session, dies. */
import { Webhook as Verifier } from 'standardwebhooks'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { startFarm, type Farm } from '../support/farm.ts'
import { startReceiver, type Letter, type Receiver } from '../support/receiver.ts'
import { quickTimes } from '../support/times.ts'
import { eventually } from '../support/wait.ts'

let farm: Farm
let receiver: Receiver
let webhook: { id: string; secret: string }
beforeAll(async () => {
  const settings = { DARKROOM_WEBHOOK_HOSTS: '*', DARKROOM_WEBHOOK_NETS: '127.0.0.0/8' }
  const times = { ...quickTimes, webhookTryMs: 500 }
  farm = await startFarm({ workers: 0, dying: 'api', settings, times })
  receiver = await startReceiver()
  webhook = (await farm.client.post('/v1/webhooks', { url: receiver.url })).json as typeof webhook
})
afterAll(async () => {
  await receiver[Symbol.asyncDispose]()
  await farm[Symbol.asyncDispose]()
})

/** Letters that tell of this session, each with a good signature. */
const lettersOf = (id: string): Letter[] => {
  const own = receiver.letters.filter(({ headers }) => headers['webhook-id'] === `ended-${id}`)
  for (const { body, headers } of own) new Verifier(webhook.secret).verify(body, headers as Record<string, string>)
  return own
}

it.each([
  ['webhook.before', 1],
  ['webhook.after', 2],
  ['control.after', 1],
] as const)('SIGKILL at %s: it is told %i times, by the same id', async (point, times) => {
  const [api] = farm.apis
  const id = await farm.submit({}, { webhook: webhook.id })
  farm.points.arm(point, id)
  await farm.control(id, 'cancel').catch(() => undefined)
  expect((await api?.exited)?.signal).toBe('SIGKILL')
  await api?.start()
  await eventually(`${id} told`, async () => {
    const { json } = await farm.client.get(`/v1/webhooks/${webhook.id}/deliveries?state=delivered`)
    return (json.deliveries as { session: string }[]).some(({ session }) => session === id)
  })
  expect(lettersOf(id)).toHaveLength(times)
})
