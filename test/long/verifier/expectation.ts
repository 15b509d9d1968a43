/**
 * What a program must come to, worked out from the program alone. It shares no code with the machine that runs it
 * (`support/program.ts`), so that neither hides the other's mistakes.
 */
import { below, insideChild, type FailureKind, type Node } from '../../support/program.ts'
import type { Scenario } from './program.ts'

/** A result: what all steps counted, and a word for everything that must have happened, in the program's order. */
export interface Result {
  total: number
  trace: string[]
}

export type Expected = { ends: 'succeeded'; result: Result } | { ends: 'failed'; code: string } | { ends: 'cancelled' }

export const failureCodes: Record<FailureKind, string> = {
  permanent: 'test.refused',
  transient: 'test.flaky',
  resource: 'test.scarce',
}

/** `pictures`: SHA-256 by seed, as an undisturbed run draws them. */
export function expectedOf(node: Node, path: string, pictures: readonly string[]): Expected {
  const good = (total: number, ...trace: string[]): Expected => ({ ends: 'succeeded', result: { total, trace } })
  switch (node.do) {
    case 'step':
      return good(node.n, `${path}=${node.n}`)
    case 'fail':
      return { ends: 'failed', code: failureCodes[node.how] }
    case 'run':
      throw new Error(`no random program runs ${node.operation}: nothing says beforehand what comes of it`)
    case 'timer':
      return good(0, `${path}+${node.ms}`)
    case 'signal':
      return good(0, `${path}~1`)
    case 'child':
      return expectedOf(node.body, insideChild(path), pictures)
    case 'picture':
      return good(0, `${path}#${pictures[node.seed]}`)
    case 'race':
      return good(0, `${path}?`)
    case 'try': {
      const body = expectedOf(node.body, below(path, 0), pictures)
      return body.ends === 'failed' ? good(0, `${path}!${body.code}`) : body
    }
    case 'sequence':
    case 'parallel': {
      let whole: Result = { total: 0, trace: [] }
      for (const [i, part] of node.of.entries()) {
        const expected = expectedOf(part, below(path, i), pictures)
        if (expected.ends !== 'succeeded') return expected
        whole = { total: whole.total + expected.result.total, trace: [...whole.trace, ...expected.result.trace] }
      }
      return { ends: 'succeeded', result: whole }
    }
  }
}

/** How a scenario may end: in one way, or, when it is cancelled on its way, in one of two. */
export function endsOf({ kind, program, cancelAtMs }: Scenario, pictures: readonly string[]): Expected[] {
  if (kind === 'endless' || (kind === 'undone' && cancelAtMs !== null)) return [{ ends: 'cancelled' }]
  if (kind === 'deadline') return [{ ends: 'failed', code: 'session.deadline_exceeded' }]
  const own = expectedOf(program, '', pictures)
  return kind === 'cancelled' ? [own, { ends: 'cancelled' }] : [own]
}
