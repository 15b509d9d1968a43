import { z } from 'zod'
import { brief } from '../command.ts'
import { operation } from '../operation.ts'
import { AllocationId, Count, Target } from '../values.ts'
import { asOperator, find, holder } from './allocation.ts'

/** Gives an allocation back before its time. @throws DarkroomError `memory.unknown` */
export const release = operation({
  ...brief,
  input: z.strictObject({ target: Target, id: AllocationId, asOperator }),
  output: z.strictObject({ id: AllocationId, bytes: Count }).meta({ id: 'AllocationReleased' }),
  async run({ target, id, asOperator: isOperator }, tools) {
    const device = tools.device(target)
    const { id: n } = await find(id, device, tools, isOperator, 'id')
    const { bytes } = await device.release(n)
    return { id, bytes }
  },
  command: {
    title: 'Release memory',
    description: 'Gives an allocation back before its time.',
    input: z.strictObject({ id: AllocationId }),
    resolve: async ({ id }, catalogue) => ({ id, target: await holder(id, 'input.id', catalogue), asOperator: catalogue.mayOperate }),
    route: { method: 'delete', path: '/memory/allocations/{id}', answers: 'What was given back' },
  },
})
