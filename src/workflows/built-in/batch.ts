import { setImmediate as nextTurn } from 'node:timers/promises'
import { setup } from 'xstate'
import { z } from 'zod'
import { Count, Seed } from '../../domains/values.ts'
import { DarkroomError, invalidFields, type FieldProblem } from '../../errors.ts'
import { suggestion } from '../check.ts'
import { defineWorkflow, workflowId, type ItemCatalogue, type Workflow } from '../define.ts'
import { items, type ItemsEnd } from '../items.ts'
import { itemOrders } from '../orders.ts'
import { expand, maxItems, problemsOf, seedField, type Cell, type Expansion, type Fields } from './batch-items.ts'

const Request = z.record(z.string(), z.unknown())

const Input = z.strictObject({
  workflow: z.string().min(1).max(128).default('image-generation').describe('which each item is a session of'),
  input: Request.default({}).describe('what all items have in common'),
  items: z.array(Request).min(1).max(maxItems).optional().describe('a list: what each has of its own'),
  grid: z
    .record(z.string().min(1).max(200), z.array(z.unknown()).min(1).max(maxItems))
    .optional()
    .describe('values by field, as in `steps` or `hires.scale`: every combination is an item, the last field changes fastest'),
  seeds: z
    .strictObject({ from: Seed.optional(), count: z.int().min(1).max(maxItems) })
    .optional()
    .describe('each item with so many seeds in a row; `from` is drawn when left out'),
  wildcards: z
    .enum(['off', 'each', 'all'])
    .default('each')
    .describe(
      'choices in prompts, `{a|b}` and `__file__`: off leaves them as letters, each draws one for each item, all makes items of every one',
    ),
  window: z.int().min(1).max(128).default(16).describe('how many items are under way at a time'),
  order: z.enum(itemOrders).default('listed').describe('in which they begin; spread: from everywhere, to see early how all of it will be'),
  onFailure: z
    .union([z.enum(['continue', 'stop']), z.int().min(1).max(maxItems)])
    .default('continue')
    .describe('stop: the first failed item ends the batch; a number: so many may fail'),
})
type Input = z.infer<typeof Input>

const Output = z.strictObject({ total: Count, succeeded: Count, failed: Count, cancelled: Count })

const machine = setup({
  types: { input: {} as Fields, output: {} as ItemsEnd },
  actors: { items: items() },
}).createMachine({
  id: 'batch',
  initial: 'working',
  states: {
    working: { invoke: { id: 'items', src: 'items', onDone: 'done' } },
    done: { type: 'final', output: ({ event }) => event['output'] as ItemsEnd },
  },
  output: ({ event }) => event['output'] as ItemsEnd,
})

/** Names of the fields that a workflow takes; undefined where its form is none of fields. */
function fieldsOf(schema: z.ZodType): string[] | undefined {
  if (schema instanceof z.ZodObject) return Object.keys(schema.shape as object)
  return schema instanceof z.ZodPipe ? fieldsOf(schema.in as z.ZodType) : undefined
}

/** Items that are looked at together: what each asks of Redis goes there in one packet. */
const stretch = 100
/** As many faults as are told. */
const maxProblems = 20

/**
 * Every item by the form of its workflow, and each that differs in more than its seed made whole, as its session will
 * do again.
 * @returns how many steps the longest takes
 * @throws DarkroomError `api.invalid`, and whatever the workflow refuses an item with, by the fields of the batch
 */
async function checked(child: Workflow, { base, cells }: Expansion, catalogue: ItemCatalogue): Promise<number> {
  const problems = new Map<string, FieldProblem>()
  const seen = new Set<string>()
  let steps = 0
  for (let from = 0; from < cells.length && problems.size < maxProblems; from += stretch) {
    const some = cells.slice(from, from + stretch).map((cell) => ({ cell, input: { ...base, ...cell.own } }))
    for (const { cell, input } of some) {
      const parsed = child.input.safeParse(input)
      const issues = parsed.success ? [] : parsed.error.issues
      for (const problem of problemsOf(issues, cell)) problems.set(`${problem.field} ${problem.message}`, problem)
    }
    // A form at fault is told whole, before anything that only the workflow itself knows.
    if (problems.size > 0) continue
    const whole = await Promise.allSettled(
      some
        .filter(({ cell: { own } }) => {
          const { [seedField]: _, ...kind } = own
          const key = JSON.stringify(kind)
          return !seen.has(key) && seen.add(key)
        })
        .map(async ({ cell, input }) => {
          try {
            return child.steps(await catalogue.complete(child, input))
          } catch (error) {
            throw error instanceof DarkroomError ? asSaid(error, cell) : error
          }
        }),
    )
    for (const outcome of whole) {
      if (outcome.status === 'rejected') throw outcome.reason
      steps = Math.max(steps, outcome.value)
    }
    // Others get their turn.
    await nextTurn()
  }
  if (problems.size > 0) throw invalidFields([...problems.values()].slice(0, maxProblems))
  return steps
}

/** The same refusal with fields as the batch names them. */
function asSaid(error: DarkroomError, { fieldOf }: Cell): DarkroomError {
  const said = (name: string): string => fieldOf(name.replace(/^input\./, ''))
  const { code, message, remedy, field, details } = error
  const listed = (details as { problems?: FieldProblem[] } | undefined)?.problems
  if (listed) return invalidFields(listed.map((problem) => ({ ...problem, field: said(problem.field) })))
  return new DarkroomError(code, message, { remedy, cause: error, ...(field && { field: said(field) }), ...(details && { details }) })
}

export const batch = defineWorkflow({
  name: 'batch',
  title: 'Batch',
  description:
    'Sessions of one workflow from a list, a grid, wildcards or a range of seeds, expanded once: each is a request of its own that gives the same bytes alone. A window of them is under way at a time, on whichever workers are free.',
  input: Input,
  output: Output,
  machine,
  async expand(given: Input, catalogue) {
    const { workflow: name, window, order, onFailure } = given
    const child = catalogue.workflow(name, 'input.workflow')
    if (child.expand) throw invalidFields([{ field: 'input.workflow', message: `is ${name}, whose sessions work off items themselves` }])
    const expansion = await expand(given, {
      known: fieldsOf(child.input),
      nearest: suggestion,
      draw: (below) => catalogue.draw(below),
      read: (file, field) => catalogue.wildcard(file, field),
    })
    const steps = await checked(child, expansion, catalogue)
    const { base, cells, axes } = expansion
    const workflow = workflowId(child)
    const most = onFailure === 'continue' ? null : onFailure === 'stop' ? 0 : onFailure
    return {
      input: { workflow, input: base, axes, window, order, onFailure },
      items: { workflow, base, each: cells.map(({ own }) => JSON.stringify(own)), window, most, order, steps },
    }
  },
  steps: () => 1,
  resources: { lanes: ['gpu', 'host'], note: 'those of its items, a window of them at a time' },
})
