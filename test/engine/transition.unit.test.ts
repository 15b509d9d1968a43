import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  assign,
  createActor,
  initialTransition,
  raise,
  setup,
  spawnChild,
  stopChild,
  transition,
  type AnyEventObject,
  type AnyMachineSnapshot,
  type AnyStateMachine,
} from 'xstate'
import { imageGeneration } from '../../src/workflows/built-in/image-generation.ts'
import { step } from '../../src/workflows/step.ts'
import { doneEvent, errorEvent, PureMachine, type Document, type Transition } from '../../src/engine/transition.ts'

type Count = { n: number; log: string[] }
const note = (word: string) =>
  assign<Count, AnyEventObject, undefined, AnyEventObject, never>({ log: ({ context }) => [...context.log, word] })
const actors = { 'a.run': step<unknown, unknown>(), 'b.run': step<unknown, unknown>(), 'c.run': step<unknown, unknown>() }
const types = { context: {} as Count, events: {} as AnyEventObject }
const context = { n: 0, log: [] as string[] }

/**
 * Machines that between them use what authors use: nesting, parallel regions, history, guards, always, timers,
 * re-entry, spawn, stop, errors.
 */
const machines: Record<string, { machine: AnyStateMachine; input?: unknown }> = {
  chain: {
    machine: setup({ types, actors }).createMachine({
      id: 'chain',
      context,
      initial: 'one',
      states: {
        one: {
          invoke: {
            id: 'x',
            src: 'a.run',
            input: ({ context: c }: { context: Count }) => ({ n: c.n }),
            onDone: { target: 'two', actions: assign({ n: ({ context: c }) => c.n + 1 }) },
          },
        },
        two: { invoke: { id: 'y', src: 'b.run', onDone: 'three', onError: { target: 'one', actions: note('again') } } },
        three: { always: [{ guard: ({ context: c }) => c.n < 3, target: 'one' }, { target: 'end' }] },
        end: { type: 'final' },
      },
      output: ({ context: c }) => ({ total: c.n }),
    }),
  },
  timers: {
    machine: setup({ types, actors, delays: { computed: ({ context: c }: { context: Count }) => 100 + c.n } }).createMachine({
      id: 'timers',
      context,
      initial: 'waiting',
      states: {
        waiting: {
          after: { 500: { target: 'late', actions: note('late') }, computed: { actions: assign({ n: ({ context: c }) => c.n + 1 }) } },
          invoke: { id: 'race', src: 'a.run', onDone: 'late' },
          on: { AGAIN: { target: 'waiting', reenter: true }, LATER: { actions: raise({ type: 'AGAIN' }, { id: 'later', delay: 50 }) } },
        },
        late: { on: { AGAIN: 'waiting', END: 'end' } },
        end: { type: 'final' },
      },
    }),
  },
  nested: {
    machine: setup({ types, actors }).createMachine({
      id: 'nested',
      context,
      type: 'parallel',
      on: { '*': { actions: note('root') } },
      states: {
        left: {
          initial: 'off',
          states: {
            off: { on: { AGAIN: 'on', LATER: 'memory' } },
            on: {
              initial: 'p',
              on: { END: 'off' },
              states: {
                p: { invoke: { id: 'p', src: 'a.run', onDone: 'q' } },
                q: { invoke: { id: 'q', src: 'b.run', onDone: 'p' }, after: { 10: 'p' } },
              },
            },
            memory: { type: 'history', history: 'deep', target: 'on' },
          },
        },
        right: {
          initial: 'r',
          states: {
            r: { invoke: { id: 'r', src: 'c.run', onDone: 's', onError: 's' } },
            s: { on: { AGAIN: { target: 'r', actions: note('r') } } },
          },
        },
      },
    }),
  },
  spawning: {
    machine: setup({ types, actors }).createMachine({
      id: 'spawning',
      context,
      on: {
        AGAIN: {
          actions: [
            spawnChild('a.run', {
              id: ({ context: c }: { context: Count }) => `k.${c.n}`,
              input: ({ context: c }: { context: Count }) => c.n,
            }),
            assign({ n: ({ context: c }) => c.n + 1 }),
          ],
        },
        LATER: { actions: [spawnChild('b.run', { id: 'brief' }), stopChild('brief')] },
        END: { actions: stopChild('k.0') },
        'xstate.done.actor.k.*': { actions: note('done') },
        'xstate.error.actor.k.*': [{ guard: ({ context: c }) => c.n < 4, actions: note('error') }],
      },
    }),
  },
  'image-generation': {
    machine: imageGeneration.machine,
    input: {
      model: 'm',
      modelHash: 'h',
      prompt: 'p',
      negativePrompt: '',
      width: 8,
      height: 8,
      steps: 1,
      guidance: 1,
      seed: 7,
      sampler: 'DDIM',
      count: 3,
      pin: 'class',
    },
  },
}

/** XState's own way, and the effects that remain of its actions in order. */
class Reference {
  readonly machine: AnyStateMachine
  snapshot: AnyMachineSnapshot
  open = new Map<string, string>()
  opened: string[] = []
  closed: string[] = []
  ended = new Set<string>()

  constructor(machine: AnyStateMachine, input: unknown) {
    this.machine = machine
    const [snapshot, actions] = initialTransition(machine, input as never)
    this.snapshot = snapshot as AnyMachineSnapshot
    this.plan(actions as { type: string; params: unknown }[])
  }

  next(event: AnyEventObject, completed: string | undefined): void {
    const persisted = JSON.parse(JSON.stringify(this.machine.getPersistedSnapshot(this.snapshot))) as never
    const restored = createActor(this.machine, { snapshot: persisted }).getSnapshot() as AnyMachineSnapshot
    const [snapshot, actions] = transition(this.machine, restored, event as never)
    this.snapshot = snapshot as AnyMachineSnapshot
    if (completed) {
      this.open.delete(completed)
      this.ended.add(completed)
    }
    this.plan(actions as { type: string; params: unknown }[])
  }

  plan(actions: { type: string; params: unknown }[]): void {
    const fresh = new Map<string, string>()
    this.closed = []
    const drop = (name: string): void => {
      if (fresh.delete(name)) this.open.delete(name)
      else if (this.open.delete(name)) this.closed.push(name)
    }
    for (const { type, params } of actions) {
      const p = params as Record<string, unknown> & { actorRef?: { id: string } }
      if (type === 'xstate.spawnChild') {
        const name = `step/${p.actorRef?.id}`
        drop(name)
        fresh.set(name, `${name} ${String(p['src'])} ${JSON.stringify(p['input'])}`)
        this.open.set(name, '')
        this.ended.delete(name)
      } else if (type === 'xstate.stopChild')
        drop(`step/${typeof params === 'string' ? params : (params as { id?: string } | undefined)?.id}`)
      else if (type === 'xstate.raise' && p['delay'] !== undefined) {
        const name = `timer/${String(p['id'])}`
        drop(name)
        fresh.set(name, `${name} ${p['delay'] as number}`)
        this.open.set(name, '')
      } else if (type === 'xstate.cancel') drop(`timer/${String(p['sendId'])}`)
    }
    if (this.snapshot.status !== 'active') for (const name of this.open.keys()) drop(name)
    this.opened = [...fresh.values()]
  }
}

const plain = (value: unknown): unknown => (value === undefined ? undefined : (JSON.parse(JSON.stringify(value)) as unknown))

function compare(ours: Transition, theirs: Reference): void {
  const persisted = plain(theirs.machine.getPersistedSnapshot(theirs.snapshot)) as Record<string, unknown>
  const document = plain(ours.document) as Document
  expect(document.value).toEqual(persisted['value'])
  expect(document.context).toEqual(persisted['context'])
  expect(document.status ?? 'active').toBe(persisted['status'])
  expect(document.output).toEqual(persisted['output'])
  expect(document.error).toEqual(persisted['error'])
  const history = Object.fromEntries(
    Object.entries((persisted['historyValue'] ?? {}) as Record<string, { id: string }[]>).map(([id, nodes]) => [
      id,
      nodes.map((node) => ({ id: node.id })),
    ]),
  )
  expect(document.history ?? {}).toEqual(history)
  const names = Object.keys(document.effects)
  if (persisted['status'] === 'active') {
    // The open steps are the children of the snapshot; XState keeps a spawned child there after its end.
    const children = Object.keys(theirs.snapshot.children)
      .map((id) => `step/${id}`)
      .filter((child) => !theirs.ended.has(child))
    expect(names.filter((name) => name.startsWith('step/')).toSorted()).toEqual(children.toSorted())
  }
  expect(names.toSorted()).toEqual([...theirs.open.keys()].toSorted())
  const opened = [
    ...ours.steps.map((s) => `step/${s.invoke} ${s.step} ${JSON.stringify(s.input)}`),
    ...ours.timers.map((t) => `timer/ ${t.delayMs}`),
  ]
  expect(opened.toSorted()).toEqual(theirs.opened.map((text) => text.replace(/^timer\/\S+/, 'timer/')).toSorted())
}

describe('the pure transition', () => {
  for (const [name, { machine, input }] of Object.entries(machines)) {
    it(`equals XState's own on random runs of ${name}`, () => {
      const pure = new PureMachine(machine)
      const choice = fc.record({ pick: fc.nat(), outside: fc.boolean(), fails: fc.integer({ min: 0, max: 4 }), reload: fc.boolean() })
      fc.assert(
        fc.property(fc.array(choice, { maxLength: 25 }), (choices) => {
          const theirs = new Reference(machine, input)
          let ours = pure.start(input, 1)
          compare(ours, theirs)
          for (const [i, { pick, outside, fails, reload }] of choices.entries()) {
            if (ours.document.status !== undefined) break
            const open = Object.entries(ours.document.effects)
            const words = ['AGAIN', 'LATER', 'END', 'class.lost', 'nobody.knows']
            let event: AnyEventObject = { type: words[pick % words.length] ?? '' }
            let completed: string | undefined
            const [effectName, effect] = outside ? [] : (open[pick % Math.max(1, open.length)] ?? [])
            if (effectName !== undefined && effect) {
              const id = effectName.slice('step/'.length)
              completed = effectName
              if ('event' in effect) event = effect.event
              else if (fails === 0) event = errorEvent(id, { code: pick % 2 ? 'artifact.missing' : 'inference.diverged', message: 'no' })
              else
                event = doneEvent(id, {
                  latents: 'l',
                  conditioning: 'c',
                  pixels: 'x',
                  width: 8,
                  height: 8,
                  exactness: { key: 'k', facts: {} },
                  seed: pick,
                })
            }
            const loaded = reload ? pure.load(JSON.parse(JSON.stringify(ours.document)) as Document) : ours
            ours = pure.next(loaded, event, effect?.suffix, i + 2)
            theirs.next(event, completed)
            compare(ours, theirs)
          }
        }),
        { numRuns: 150 },
      )
    })
  }

  it('gives every effect a suffix of its own, also when one id is spawned twice in one step', () => {
    const pure = new PureMachine(machines['spawning']?.machine as AnyStateMachine)
    const brief = pure.next(pure.start(undefined, 1), { type: 'LATER' }, undefined, 2)
    expect(brief.steps).toEqual([])
    const spawned = pure.next(brief, { type: 'AGAIN' }, undefined, 3)
    expect(spawned.steps.map((opened) => opened.suffix)).toEqual(['3.0'])
  })

  it('refuses a document whose step the machine no longer has', () => {
    const pure = new PureMachine(machines['chain']?.machine as AnyStateMachine)
    const { document } = pure.start(undefined, 1)
    const renamed = JSON.parse(JSON.stringify(document).replace('a.run', 'gone.run')) as Document
    expect(() => pure.load(renamed)).toThrowError(/gone\.run/)
  })

  it('refuses an action that cannot run durably, and a delayed event without an id', () => {
    const acting = setup({ types, actions: { beep: () => undefined } }).createMachine({ context, on: { AGAIN: { actions: 'beep' } } })
    const pure = new PureMachine(acting)
    expect(() => pure.next(pure.start(undefined, 1), { type: 'AGAIN' }, undefined, 2)).toThrowError(/make it a step/)
    const nameless = new PureMachine(
      setup({ types }).createMachine({ context, on: { AGAIN: { actions: raise({ type: 'X' }, { delay: 5 }) } } }),
    )
    expect(() => nameless.next(nameless.start(undefined, 1), { type: 'AGAIN' }, undefined, 2)).toThrowError(/needs an id/)
  })
})
