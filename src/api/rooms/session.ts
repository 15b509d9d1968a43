/** What happened to a session on its way: its machine, its steps over time, and from where one may go on. */
import { ended } from '../../engine/session.ts'
import { visibleSession } from '../policy.ts'
import { presentReceipt, presentStates } from '../sessions/views.ts'
import type { At } from './at.ts'
import { drawing, pathsIn } from './drawing.ts'
import { div, el, ol, opening, small, time, type Element } from './markup.ts'
import { timeline } from './timeline.ts'

export async function session({ engine, caller, of, may }: At): Promise<Element> {
  const { id, workflow, status, input } = await visibleSession(engine, of, caller)
  // A workflow that is not here any more tells nothing of its states.
  const [receipt, found] = await Promise.all([engine.receipt(id), engine.states(id).catch(() => [])])
  const { states } = presentStates(found)
  const [name, version] = workflow.split('@')
  const info = engine.workflows().find((each) => each.name === name && String(each.version) === version)
  const fork = (state: (typeof states)[number], words: string, more: object): Element =>
    el('Fork', { session: id, state, name: nameOf(state), ...more }, words)
  const isForked = may('submit') && states.length > 0
  return div(
    'told',
    info &&
      states.length > 0 &&
      drawing(info, { isOver: ended.has(status), isWell: status === 'succeeded', values: states.map(({ value }) => value) }),
    receipt &&
      timeline(receipt, (step) => {
        const state = isForked && states.find(({ open }) => open.includes(step))
        return state && fork(state, 'Fork', { class: 'plain', 'aria-label': `Fork from ${nameOf(state)}` })
      }),
    isForked &&
      opening(
        'Fork',
        ol(
          'states',
          states.map((state) =>
            el('li', { key: state.entry }, el('span', {}, `${nameOf(state)} `, small(time(state.at))), fork(state, 'Fork here', {})),
          ),
        ),
      ),
    opening('Request and receipt', told(input), receipt && told(presentReceipt(receipt))),
  )
}

const nameOf = ({ value }: { value: unknown }): string => pathsIn(value).at(-1) ?? ''
const told = (value: unknown): Element => el('pre', {}, JSON.stringify(value, null, 2))
