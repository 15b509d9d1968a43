import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { root } from '../../../src/config.ts'
import {
  decodeReply,
  encodeRequest,
  lineCap,
  replies,
  requests,
  results,
  unasked,
  type Action,
} from '../../../src/workers/python/protocol.ts'

const folder = join(root, 'test/fixtures/protocol')

interface Fixture {
  from: 'node' | 'child'
  wire: { request_id: string; action: Action; data: Record<string, unknown> }
  frame: { requestId: string; action: Action; data: never }
}
const fixtures = Object.fromEntries(
  readdirSync(folder).map((file) => [file.replace('.json', ''), JSON.parse(readFileSync(join(folder, file), 'utf8')) as Fixture]),
)
function fixture(name: string): Fixture {
  const found = fixtures[name]
  if (!found) throw new Error(`there is no fixture ${name}`)
  return found
}
const of = (from: 'node' | 'child') => Object.keys(fixtures).filter((name) => fixtures[name]?.from === from)
const line = (value: unknown) => Buffer.from(JSON.stringify(value))
const code = (body: () => unknown) => {
  try {
    body()
  } catch (error) {
    return (error as { code?: string }).code
  }
  return 'nothing thrown'
}

/** Fields that a frame may lack; their keys are those of objects and of frame types. */
const optional: Record<string, string[]> = {
  progress: ['call', 'calls', 'rate', 'eta_s'],
  error: ['field', 'details'],
  stats: ['seconds', 'load_s', 'calls', 'resumed_from', 'checkpoint_refused', 'remade', 'tokens', 'memory', 'tiles'],
}
/** Their keys are names that others chose; of those in the second list the values are free as well. */
const opaque = ['sessions', 'details', 'facts']
const anything = ['details', 'facts']

/**
 * Every way to leave one field out, rename it, add one or give it another type, at any depth that the protocol names.
 */
function* mutants(value: unknown, within = ''): Generator<unknown> {
  if (Array.isArray(value)) {
    for (const [i, item] of value.entries()) for (const mutant of mutants(item)) yield value.with(i, mutant)
  } else if (value !== null && typeof value === 'object') {
    const entries = Object.entries(value)
    const mayLack = [...(optional[within] ?? []), ...(optional[String((value as { type?: unknown }).type)] ?? [])]
    yield { ...value, surprise: 1 }
    for (const [key, item] of entries) {
      if (!mayLack.includes(key)) yield Object.fromEntries(entries.filter(([other]) => other !== key))
      yield Object.fromEntries(entries.map(([other, its]) => [other === key ? `${key}_x` : other, its]))
      if (!anything.includes(key)) yield { ...value, [key]: { of: 'another type' } }
      yield { ...value, [key]: [[]] }
      if (!opaque.includes(key)) for (const mutant of mutants(item, key)) yield { ...value, [key]: mutant }
    }
  }
}

describe('protocol fixtures', () => {
  it('are there for every message', () => {
    const sent = Object.values(fixtures).map(({ from, wire }) => ({ from, action: wire.action, type: wire.data['type'] }))
    const actions = (chosen: typeof sent) => [...new Set(chosen.map(({ action }) => action))].toSorted()
    const child = sent.filter(({ from }) => from === 'child')
    expect(actions(sent.filter(({ from }) => from === 'node'))).toEqual(Object.keys(requests).toSorted())
    expect(actions(child.filter(({ type }) => type === 'result'))).toEqual(Object.keys(results).toSorted())
    expect(actions(child.filter(({ type }) => type === undefined))).toEqual(Object.keys(unasked).toSorted())
    expect(new Set(child.map(({ type }) => type))).toEqual(new Set([undefined, 'result', ...Object.keys(replies)]))
  })

  it.each(of('node'))('%s: the request as sent is the wire form', (name) => {
    const { wire, frame } = fixture(name)
    const sent = encodeRequest(frame.requestId, frame.action, frame.data)
    expect(JSON.parse(sent.toString('utf8'))).toEqual(wire)
    expect(sent.at(-1)).toBe(0x0a)
    expect(sent.subarray(0, -1).every((byte) => byte >= 0x20 && byte < 0x7f)).toBe(true)
  })

  it.each(of('child'))('%s: the line as read is the frame, and no field of it may go, be added, renamed or of another type', (name) => {
    const { wire, frame } = fixture(name)
    expect(decodeReply(line(wire))).toEqual(frame)
    for (const mutant of mutants(wire))
      expect(
        code(() => decodeReply(line(mutant))),
        JSON.stringify(mutant),
      ).toBe('worker.protocol')
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
