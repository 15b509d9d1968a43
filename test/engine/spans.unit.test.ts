/** Traces read off the records of sessions. */
import { describe, expect, it } from 'vitest'
import type { Session, SessionEvent } from '../../src/engine/session.ts'
import { spansOf } from '../../src/engine/spans.ts'
import { noUse } from '../../src/engine/usage.ts'
import { spanIdOf, traceIn, traceOf, traceOfChild } from '../../src/trace.ts'

const id = '0-01m8jr000000000000000000a1'
const session = (more: Partial<Session> = {}): Session => ({
  id,
  workflow: 'image-generation@1',
  status: 'succeeded',
  waiting: null,
  input: { model: { id: 'darkroom-tiny' } },
  output: {},
  error: null,
  progress: null,
  priority: 5,
  tags: [],
  keyId: null,
  retryOf: null,
  forkOf: null,
  undo: null,
  webhook: null,
  parent: null,
  trace: null,
  device: null,
  concurrency: null,
  exactnessKey: null,
  createdAt: 1000,
  startedAt: 1500,
  endedAt: 9000,
  deadlineAt: null,
  deadlineLeftMs: null,
  use: noUse,
  version: 4,
  ...more,
})
const step = (type: SessionEvent['type'], at: number, attemptId: string, more: Record<string, unknown> = {}): SessionEvent => ({
  type,
  at,
  key: `${id}.1.0`,
  step: 'inference.denoise',
  attemptId,
  worker: `w${attemptId}`,
  ...more,
})

describe('the trace of a session', () => {
  it('follows from its id alone, or from the traceparent that it was submitted with', () => {
    const own = traceOf(id, null)
    expect(own).toEqual({ id: expect.stringMatching(/^[0-9a-f]{32}$/) as string, parent: null })
    const given = traceIn('00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01')
    expect(traceOf(id, given)).toEqual({ id: '0af7651916cd43dd8448eb211c80319c', parent: 'b7ad6b7169203331' })
    expect(traceOf('0-child', traceOfChild(id, given))).toEqual({ id: '0af7651916cd43dd8448eb211c80319c', parent: spanIdOf(id) })
    expect(traceOf('0-child', traceOfChild(id, null))).toEqual({ id: own.id, parent: spanIdOf(id) })
  })

  it('takes what is no traceparent for none', () => {
    for (const broken of [
      undefined,
      '',
      '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331',
      'ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
      `00-${'0'.repeat(32)}-b7ad6b7169203331-01`,
      `00-0af7651916cd43dd8448eb211c80319c-${'0'.repeat(16)}-01`,
      '00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01',
    ])
      expect(traceIn(broken), broken).toBeUndefined()
  })

  it('is whole though two of its workers were lost: a span of each attempt, below that of the session', () => {
    const [whole, ...attempts] = spansOf(session(), [
      step('step.started', 1500, 'a'),
      step('step.recovered', 3000, 'a'),
      step('step.started', 3100, 'b', { checkpoint: { call: 7, sha256: 'x' } }),
      step('step.recovered', 5000, 'b'),
      step('step.started', 5100, 'c', { checkpoint: { call: 9, sha256: 'y' } }),
      step('step.completed', 8800, 'c', { stats: {} }),
      { type: 'session.succeeded', at: 9000 },
    ])
    expect(whole).toMatchObject({ name: 'image-generation@1', kind: 2, startTimeUnixNano: '1000000000', endTimeUnixNano: '9000000000' })
    expect(whole?.events.map(({ name }) => name)).toEqual(['step.recovered', 'step.recovered'])
    expect(attempts.map(({ status, startTimeUnixNano, endTimeUnixNano }) => [status.code, startTimeUnixNano, endTimeUnixNano])).toEqual([
      [2, '1500000000', '3000000000'],
      [2, '3100000000', '5000000000'],
      [1, '5100000000', '8800000000'],
    ])
    expect(new Set(attempts.map(({ parentSpanId }) => parentSpanId))).toEqual(new Set([whole?.spanId]))
    expect(new Set([whole, ...attempts].map((span) => span?.traceId)).size).toBe(1)
    expect(new Set([whole, ...attempts].map((span) => span?.spanId)).size).toBe(4)
    expect(attempts[1]?.attributes).toContainEqual({ key: 'darkroom.resumed_from_call', value: { intValue: '7' } })
  })

  it('says of a failed session why, and of a retry where it comes from', () => {
    const error = { code: 'x.y', class: 'permanent' as const, message: 'no', remedy: 'Do.' }
    const [whole] = spansOf(session({ status: 'failed', error, retryOf: '0-old' }), [])
    expect(whole?.status).toEqual({ code: 2, message: 'no' })
    expect(whole?.links).toMatchObject([{ traceId: traceOf('0-old', null).id, spanId: spanIdOf('0-old') }])
  })
})
