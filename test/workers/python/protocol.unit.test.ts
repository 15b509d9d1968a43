import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { root } from '../../../src/config.ts'
import '../../../src/domains/index.ts'
import { samplers } from '../../../src/domains/values.ts'
import { errorCatalogue } from '../../../src/errors.ts'
import '../../../src/models/scan.ts'
import { decodeReply, encodeRequest, lineCap, outputs, requests, type Action } from '../../../src/workers/python/protocol.ts'

const folder = join(root, 'test/fixtures/protocol')

/** Every message there is; python/tests/test_protocol.py holds the same list. */
const fromNode = ['hello', 'ping', 'pause', 'cancel', 'shutdown', 'ensure', 'trim', 'encode', 'denoise', 'denoise-resumed', 'decode']
const fromChild = [
  'greeting',
  'heartbeat',
  'heartbeat-idle',
  'hello-progress',
  'hello-result',
  'hello-refused',
  'ping-result',
  'pause-result',
  'cancel-result',
  'shutdown-result',
  'ensure-result',
  'trim-result',
  'encode-result',
  'denoise-accepted',
  'denoise-load',
  'denoise-progress',
  'denoise-checkpoint',
  'denoise-result',
  'denoise-released',
  'denoise-released-empty',
  'decode-result',
  'error',
  'error-cancelled',
]

interface Fixture {
  from: 'node' | 'child'
  wire: { request_id: string; action: Action; data: Record<string, unknown> }
  frame: { requestId: string; action: Action; data: never }
}
const fixture = (name: string) => JSON.parse(readFileSync(join(folder, `${name}.json`), 'utf8')) as Fixture
const line = (value: unknown) => Buffer.from(JSON.stringify(value))
const code = (body: () => unknown) => {
  try {
    body()
  } catch (error) {
    return (error as { code?: string }).code
  }
  return 'nothing thrown'
}

/** Every way to leave one field out or to add one, at any depth that the protocol names. */
function* mutants(value: unknown): Generator<unknown> {
  if (Array.isArray(value)) {
    for (const [i, item] of value.entries()) for (const mutant of mutants(item)) yield value.with(i, mutant)
  } else if (value !== null && typeof value === 'object') {
    const entries = Object.entries(value)
    yield { ...value, surprise: 1 }
    for (const [key, item] of entries) {
      if (!['field', 'details', 'call', 'calls', 'rate', 'eta_s'].includes(key))
        yield Object.fromEntries(entries.filter(([other]) => other !== key))
      yield Object.fromEntries(entries.map(([other, its]) => [other === key ? `${key}_x` : other, its]))
      if (!['stats', 'sessions', 'details', 'files', 'params'].includes(key))
        for (const mutant of mutants(item)) yield { ...value, [key]: mutant }
    }
  }
}

describe('protocol fixtures', () => {
  it('are exactly one file per message', () => {
    expect(
      readdirSync(folder)
        .filter((name) => name.endsWith('.json'))
        .sort(),
    ).toEqual([...fromNode, ...fromChild].map((name) => `${name}.json`).sort())
    expect(new Set(fromNode.map((name) => fixture(name).wire.action))).toEqual(new Set(Object.keys(requests)))
    expect(Object.keys(outputs).sort()).toEqual(Object.keys(requests).sort())
  })

  it.each(fromNode)('%s: the request as sent is the wire form', (name) => {
    const { from, wire, frame } = fixture(name)
    expect(from).toBe('node')
    const sent = encodeRequest(frame.requestId, frame.action, frame.data)
    expect(JSON.parse(sent.toString('utf8'))).toEqual(wire)
    expect(sent.at(-1)).toBe(0x0a)
    expect(sent.subarray(0, -1).every((byte) => byte >= 0x20 && byte < 0x7f)).toBe(true)
  })

  it.each(fromChild)('%s: the line as read is the frame, and no field of it may go, be added or renamed', (name) => {
    const { from, wire, frame } = fixture(name)
    expect(from).toBe('child')
    expect(decodeReply(line(wire))).toEqual(frame)
    for (const mutant of mutants(wire))
      expect(
        code(() => decodeReply(line(mutant))),
        JSON.stringify(mutant),
      ).toBe('worker.protocol')
  })
})

describe('what both sides hold', () => {
  it('the errors that the child may send have the class and remedy they have here; python/tests/test_protocol.py reads the same file', () => {
    const shared = JSON.parse(readFileSync(join(root, 'test/fixtures/child-errors.json'), 'utf8')) as Record<string, unknown>
    const ours = Object.fromEntries(Object.keys(shared).map((name) => [name, errorCatalogue.get(name)]))
    expect(ours).toEqual(shared)
  })

  it('the samplers that the child says it has are those that the API offers', () => {
    const { data } = fixture('hello-result').wire
    expect((data['output'] as { samplers: string[] }).samplers).toEqual(samplers)
  })
})

describe('encodeRequest', () => {
  it('refuses a line over the cap and data that the action does not take', () => {
    const { frame } = fixture('encode')
    const data = structuredClone(frame.data) as { input: { prompt: string } }
    data.input.prompt = 'x'.repeat(lineCap)
    expect(code(() => encodeRequest('1', 'inference.encode', data as never))).toBe('worker.protocol')
    expect(code(() => encodeRequest('1', 'worker.pause', {} as never))).toBe('worker.protocol')
  })
})

describe('decodeReply', () => {
  it.each([
    ['no JSON', Buffer.from('garbage')],
    ['broken UTF-8', Buffer.from([0x7b, 0xff, 0x7d])],
    ['no object', line([1])],
    ['a number', line(7)],
    ['an unknown action', line({ request_id: '1', action: 'toString', data: { type: 'accepted' } })],
    ['an unasked frame of another kind', line({ request_id: '0', action: 'worker.ping', data: { type: 'accepted' } })],
    [
      'an output of another action',
      line({ request_id: '1', action: 'inference.decode', data: { type: 'result', output: {}, files: {}, stats: {} } }),
    ],
  ])('refuses %s', (_, bytes) => {
    expect(code(() => decodeReply(bytes))).toBe('worker.protocol')
  })

  it('leaves the keys of user data alone', () => {
    const { wire } = fixture('heartbeat')
    const reply = decodeReply(line(wire))
    expect(reply).toMatchObject({ data: { sessions: { sess_One: 98_304 }, rssBytes: 734_003_200 } })
  })
})
