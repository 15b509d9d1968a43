import { expect, it } from 'vitest'
import { defineWorkflow, setup, z } from '../../src/workflows/index.ts'
import { startEngine } from '../support/engine.ts'

it('an input whose schema transforms it is parsed once', async () => {
  const machine = setup({}).createMachine({ initial: 'done', states: { done: { type: 'final' } } })
  const input = z.strictObject({ words: z.string().transform((text) => text.split(' ')) })
  await using t = await startEngine({ workflows: [defineWorkflow({ name: 'worded', input, machine })] })
  const id = await t.submit({ workflow: 'worded', input: { words: 'a red circle' } })
  expect((await t.engine.get(id))?.input).toEqual({ words: ['a', 'red', 'circle'] })
})
