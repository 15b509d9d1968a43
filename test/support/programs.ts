/** Programs that several tests run. */
import { step, type Node } from './program.ts'

/**
 * A step; then at once two children, of which one fails and is passed over, a delay and a signal; then a step that
 * counts again.
 */
export const tree = ({ n = 1, ms = 0, delayMs = 60_000 } = {}): Node => ({
  do: 'sequence',
  of: [
    step({ n }),
    {
      do: 'parallel',
      of: [
        { do: 'child', body: step({ n: 10, ms }) },
        { do: 'try', body: { do: 'child', body: { do: 'fail', ms: 0, how: 'permanent' } } },
        { do: 'timer', ms: delayMs },
        { do: 'signal' },
      ],
    },
    step({ n: 1000 }),
  ],
})

/** The paths of a tree's children, as their inputs have them. */
export const treeChildren = { good: '1.0/', bad: '1.1.0/' }

/** What an undisturbed tree gives that was told `data`. */
export const treeOutput = (n: number, data: unknown): Record<string, unknown> => ({
  total: n + 1010,
  said: ['0', [treeChildren.good], 'failed', 'waited', data, '2'],
})

const told = (name: string, more: Parameters<typeof step>[0] = {}): Node => step({ name, tells: true, ...more })

/** The steps of a journey, by name. */
export const journeySteps = ['again', 'child', 'first', 'last', 'late']

/**
 * Passes the crash points once it is told to go: a step; then at once a child, a step that fails at first, and a delay
 * with a step behind it; then a step that joins them. `kills`: so many runs of its first step take their worker with
 * them. `waits`: its child is to be told, too.
 */
export const journey = ({ kills = 0, waits = false } = {}): Node => ({
  do: 'sequence',
  of: [
    { do: 'signal' },
    told('first', { kills }),
    {
      do: 'parallel',
      of: [
        { do: 'try', body: { do: 'child', body: { do: 'sequence', of: [...(waits ? [{ do: 'signal' } as const] : []), told('child')] } } },
        told('again', { flaky: { how: 'transient', times: 1 } }),
        { do: 'sequence', of: [{ do: 'timer', ms: 300 }, told('late')] },
      ],
    },
    told('last'),
  ],
})
