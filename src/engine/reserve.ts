/** What sessions may need of Redis until they end, so that what was accepted can always end. */
import type { Items, Workflow } from '../workflows/index.ts'

/**
 * What a session and its first job take in Redis, and what each step adds to that until the session ends, bytes:
 * measured, and a little more.
 */
export const sessionBytes = 6000
const stepBytes = 2000

export const reserveOf = (workflow: Workflow, input: Record<string, unknown>): number => stepBytes * (1 + workflow.steps(input))

/** What one item may need: its child session, with its steps. */
export const bytesOfItem = ({ steps }: Items): number => sessionBytes + stepBytes * (1 + steps)

/** What a session reserves for its items; each takes its share when it is opened. */
export const reserveOfItems = (items: Items | undefined): number => (items ? items.each.length * bytesOfItem(items) : 0)
