/**
 * The programs by themselves: what the machine comes to, in whatever order its effects end, is what was worked out
 * beforehand.
 */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { doneEvent, errorEvent, PureMachine, type Document, type OpenEffect } from '../../../src/engine/transition.ts'
import { endsOf, expectedOf, failureCodes, type Expected } from './expectation.ts'
import { faultKinds, planOf } from './faults.ts'
import { nodesOf, workflows, type FailureKind, type Node } from '../../support/program.ts'
import { kinds, pictureSeeds, scenario, type Scenario } from './program.ts'

const pictures = Array.from({ length: pictureSeeds }, (_, i) => `picture ${i}`)
const [program] = workflows
const machine = new PureMachine(program!.machine)

type Ended = { status: 'succeeded'; output: unknown } | { status: 'failed'; code: string }

/** Runs a program without an engine: `draw` decides which of the open effects ends next. */
function run(node: Node, path: string, draw: () => number): Ended {
  let version = 1
  let at = machine.start({ key: 'k', ledger: '/', path, program: node }, version)
  while (at.document.status === undefined) {
    const open = Object.entries(at.document.effects)
    const signals = [...nodesOf(node, path)].filter(
      ({ node: { do: is }, path: where }) => is === 'signal' && !(where in heard(at.document)),
    )
    const choices = open.length + signals.length
    const chosen = Math.floor(draw() * choices)
    const [name, effect] = open[chosen] ?? []
    version++
    if (name === undefined || !effect) {
      const event = { type: 'signal.go', data: { path: signals[chosen - open.length]?.path } }
      at = machine.next(machine.load(at.document), event, undefined, version)
    } else at = machine.next(machine.load(at.document), endOf(name.slice(name.indexOf('/') + 1), effect, draw), effect.suffix, version)
  }
  const output = at.document.output as { error?: { code: string } }
  return output.error ? { status: 'failed', code: output.error.code } : { status: 'succeeded', output }
}

const heard = (document: Document): Record<string, number> => (document.context as { heard: Record<string, number> }).heard

function endOf(id: string, effect: OpenEffect, draw: () => number): ReturnType<typeof doneEvent> {
  if ('event' in effect) return effect.event
  if ('items' in effect) throw new Error('programs have no items')
  const input = effect.input as Record<string, unknown>
  if ('step' in effect) {
    if (input['failures'] === null) return errorEvent(id, { code: failureCodes[input['how'] as FailureKind] })
    return doneEvent(id, { n: input['n'], token: `token of ${String(input['path'])}` })
  }
  if (effect.session === 'image-generation@1') return doneEvent(id, { images: [{ sha256: pictures[input['seed'] as number] }] })
  const ended = run(input['program'] as Node, input['path'] as string, draw)
  return ended.status === 'failed' ? errorEvent(id, { code: ended.code }) : doneEvent(id, ended.output)
}

function comesTo(ended: Ended, expected: Expected): void {
  if (expected.ends === 'succeeded') expect(ended).toMatchObject({ status: 'succeeded', output: expected.result })
  else expect(ended).toEqual({ status: 'failed', code: expected.ends === 'failed' && expected.code })
}

describe('random programs', () => {
  it('come to what was worked out beforehand, in whatever order their effects end', () => {
    fc.assert(
      fc.property(
        fc.nat(),
        fc.nat(10_000),
        fc.infiniteStream(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })),
        (seed, i, draws) => {
          const { program: node, kind } = scenario(seed, i)
          fc.pre(kind !== 'endless' && kind !== 'deadline')
          comesTo(
            run(node, '', () => draws.next().value ?? 0),
            expectedOf(node, '', pictures),
          )
        },
      ),
      { numRuns: 300 },
    )
  })

  it('are the same for the same seed, and others for another', () => {
    const some = (seed: number) => Array.from({ length: 50 }, (_, i) => scenario(seed, i))
    expect(some(8)).toEqual(some(8))
    expect(some(9)).not.toEqual(some(8))
    const plan = (seed: number) => planOf({ seed, minutes: 2, workers: 3, apis: 2 })
    expect(plan(8)).toEqual(plan(8))
    expect(plan(9)).not.toEqual(plan(8))
  })

  it('use everything there is: every kind, every node, every way to fail, every fault', () => {
    const all = Array.from({ length: 200 }, (_, i) => scenario(1, i))
    expect(new Set(all.map(({ kind }) => kind))).toEqual(new Set(kinds))
    const nodes = all.flatMap(({ program: node }) => [...nodesOf(node)].map((each) => each.node))
    const done = ['step', 'fail', 'timer', 'signal', 'child', 'picture', 'sequence', 'parallel', 'try', 'race']
    expect(new Set(nodes.map((node) => node.do))).toEqual(new Set(done))
    expect(new Set(nodes.flatMap((node) => (node.do === 'fail' ? [node.how] : [])))).toEqual(new Set(Object.keys(failureCodes)))
    const signals = all.flatMap((each) => each.signals)
    expect(new Set(signals.map(({ by }) => by))).toEqual(new Set(['signal', 'approval']))
    const cancelled = all.filter(({ cancelAtMs }) => cancelAtMs !== null)
    expect(new Set(cancelled.map(({ cancelBy }) => cancelBy))).toEqual(new Set(['verb', 'bulk']))
    expect(new Set(all.map(({ concurrency }) => concurrency?.limit))).toEqual(new Set([undefined, 1, 2]))
    // What is urgent takes the place of others.
    const isUrgent = ({ priority, moves }: Scenario): boolean => priority === 9 || moves.some(({ how }) => how === 9)
    expect(all.some(isUrgent)).toBe(true)
    const ends = all.flatMap((each) => endsOf(each, pictures)).map((end) => end.ends)
    expect(new Set(ends)).toEqual(new Set(['succeeded', 'failed', 'cancelled']))
    expect(new Set(planOf({ seed: 1, minutes: 1.2, workers: 3, apis: 2 }).map(({ kind }) => kind))).toEqual(new Set(faultKinds))
  })
})
