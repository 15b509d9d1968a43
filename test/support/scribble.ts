/** An operation that fills an allocation with 0xab, for tests that look for those bytes afterwards. */
import { lasting } from '../../src/domains/command.ts'
import { find, holder } from '../../src/domains/memory/allocation.ts'
import { operation } from '../../src/domains/operation.ts'
import { AllocationId, Target } from '../../src/domains/values.ts'
import { z } from '../../src/workflows/index.ts'
import { commandWorkflows } from '../../src/workflows/one-step.ts'

const scribble = operation({
  ...lasting,
  input: z.strictObject({ target: Target, id: AllocationId }),
  output: z.strictObject({}).meta({ id: 'MemoryScribbled' }),
  async run({ target, id }, tools) {
    const device = tools.device(target)
    const { id: n, bytes } = await find(id, device, tools, true, 'id')
    await device.memory.write(n, new Uint8Array(bytes).fill(0xab))
    return {}
  },
  command: {
    title: 'Scribble over memory',
    description: 'Fills an allocation.',
    input: z.strictObject({ id: AllocationId }),
    resolve: async ({ id }, catalogue) => ({ id, target: await holder(id, 'input.id', catalogue) }),
    route: { method: 'post', path: '/memory/allocations/{id}/scribble', answers: 'Nothing' },
  },
})

export const operations = { 'memory.scribble': scribble }
export const workflows = commandWorkflows(operations)
