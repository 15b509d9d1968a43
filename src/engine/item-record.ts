/** How the items of a session stand in its record, and what moves them. */
import { workflowError } from '../errors.ts'
import type { Items } from '../workflows/index.ts'
import type { Progress, Status } from './session.ts'
import type { Use } from './usage.ts'

/** An item whose child session has ended. */
export interface EndedItem {
  /** Of its effect: `<suffix of the effect that works items off>.<index>`. */
  suffix: string
  value: string
  status: Status
  /** Artifacts that it names. */
  references: readonly string[]
  use: Use
}

export interface MovedItems {
  /** All have ended; more have failed than may; some are still to come. */
  is: 'all' | 'over' | 'open'
  opened: { suffix: string; value: string }[]
}

/** What is recorded of a session's items beside themselves. @param bytes what each may need of Redis */
export const itemFields = (items: Items, bytes: number): Record<string, string | null> => ({
  'items:workflow': items.workflow,
  'items:base': JSON.stringify(items.base),
  'items:total': String(items.each.length),
  'items:next': '0',
  'items:order': items.order,
  ...orderOf(items),
  'items:window': String(items.window),
  'items:most': items.most === null ? null : String(items.most),
  'items:steps': String(items.steps),
  'items:reserve': String(bytes),
  progress: JSON.stringify({
    fraction: 0,
    step: 'items',
    stage: 'run',
    items: { total: items.each.length, waiting: items.each.length, running: 0, succeeded: 0, failed: 0, cancelled: 0 },
  } satisfies Progress),
})

/** Fields that the items of a later session follow from, with what each has of its own. */
export const plannedFields = ['items:workflow', 'items:base', 'items:order', 'items:window', 'items:most', 'items:steps'] as const

/** The same plan for other items. */
export function itemsOf(record: Record<(typeof plannedFields)[number], string | null>, each: readonly string[]): Items {
  const of = (field: Exclude<keyof typeof record, 'items:most'>): string => {
    const value = record[field]
    if (value === null) throw workflowError('broken', `${field} is not in the record of the session`)
    return value
  }
  return {
    workflow: of('items:workflow'),
    base: JSON.parse(of('items:base')) as Record<string, unknown>,
    each,
    order: of('items:order') as Items['order'],
    window: Number(of('items:window')),
    most: record['items:most'] === null ? null : Number(record['items:most']),
    steps: Number(of('items:steps')),
  }
}

/** The n-th item to be opened is `(first + stride · n) mod count`: each once, as both have no common divisor. */
function orderOf({ order, each: { length: count } }: Items): Record<'items:first' | 'items:stride', string> {
  if (order === 'listed') return { 'items:first': '0', 'items:stride': '1' }
  if (order === 'reversed') return { 'items:first': String(count - 1), 'items:stride': String(count - 1) }
  // The golden section leaves no gap much larger than another, wherever one stops.
  let stride = Math.max(1, Math.round(count * 0.618034))
  while (divisor(stride, count) > 1) stride++
  return { 'items:first': '0', 'items:stride': String(stride) }
}

const divisor = (a: number, b: number): number => (b === 0 ? a : divisor(b, a % b))
