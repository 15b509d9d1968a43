import { z } from 'zod'
import { brief } from '../command.ts'
import { operation } from '../operation.ts'
import { AllocationId, Target } from '../values.ts'
import { asOperator, find, holder, make, milliseconds, timeToLiveMs, view } from './allocation.ts'
import { AllocationView } from './figures/report.ts'

/** The time of an allocation begins anew. @throws DarkroomError `memory.unknown` */
export const renew = operation({
  ...brief,
  input: z.strictObject({ target: Target, id: AllocationId, timeToLiveMs, asOperator }),
  output: AllocationView,
  async run({ target, id, timeToLiveMs: ms, asOperator: isOperator }, tools) {
    const device = tools.device(target)
    const { id: n } = await find(id, device, tools, isOperator, 'id')
    device.memory.renew(n, ms)
    return view(device.memory.inspect(n), device)
  },
  command: {
    title: 'Renew an allocation',
    description: 'Begins the time of an allocation anew.',
    input: z.strictObject({ id: AllocationId, timeToLiveS: make.timeToLiveS }),
    resolve: async ({ id, timeToLiveS }, catalogue) => ({
      id,
      target: await holder(id, 'input.id', catalogue),
      timeToLiveMs: milliseconds(timeToLiveS),
      asOperator: catalogue.mayOperate,
    }),
    route: {
      method: 'post',
      path: '/memory/allocations/{id}/renew',
      body: 'RenewAllocation',
      isBodyRequired: false,
      answers: 'The allocation',
    },
  },
})
