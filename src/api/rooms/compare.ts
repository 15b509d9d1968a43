/** What differs of the requests of two sessions. What both say is not told. */
import { visibleSession } from '../policy.ts'
import type { At } from './at.ts'
import { link, linkTo, span, table, type Element } from './markup.ts'

export async function compare({ engine, caller, of }: At): Promise<Element> {
  const pair = await Promise.all(of.split(',').map((id) => visibleSession(engine, id, caller)))
  const inputs = pair.map(({ input }) => input)
  const names = [...new Set(inputs.flatMap((input) => Object.keys(input)))]
  const rows = names.map((name) => [name, name, ...inputs.map((input) => inWords(input[name]))] as const)
  return table(
    '',
    [
      span('sr', 'What differs'),
      ...pair.map(({ id, workflow, input }, i) => link(linkTo('session', id), `${'AB'[i]}: ${inWords(input['prompt'] ?? workflow)}`)),
    ],
    rows.filter(([, , one, two]) => one !== two),
  )
}

const inWords = (value: unknown): string => (typeof value === 'string' ? value : (JSON.stringify(value) ?? '–'))
