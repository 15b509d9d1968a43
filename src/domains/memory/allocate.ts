import { z } from 'zod'
import { brief, DeviceName } from '../command.ts'
import { operation } from '../operation.ts'
import { Bytes, Target } from '../values.ts'
import { Made, make, milliseconds, obtain, view } from './allocation.ts'
import { memoryError } from './errors.ts'
import { AllocationView } from './figures/report.ts'

/**
 * Device memory, or host memory that the device reads or writes at full speed.
 * @throws DarkroomError `memory.exhausted`, `device.unavailable`
 */
export const allocate = operation({
  ...brief,
  input: Made.extend({ target: Target, bytes: Bytes }),
  output: AllocationView,
  async run({ target, bytes, ...made }, tools) {
    const device = tools.device(target)
    return view(await obtain(bytes, made, device, tools), device)
  },
  command: {
    title: 'Allocate memory',
    description: 'Real memory of a device, or of its host, that belongs to the caller until its time is over.',
    input: z
      .strictObject({
        device: DeviceName.optional().describe('default: the caller’s default device, else the only one there is'),
        bytes: Bytes,
        ...make,
      })
      .meta({ example: { device: 'cuda:0', bytes: 1_048_576 } }),
    async resolve({ device, timeToLiveS, ...given }, catalogue) {
      const target = await catalogue.device(device, 'input.device')
      const whose = given.kind === 'device' ? 'device' : 'ram'
      const { [whose]: total } = await catalogue.capacity(target)
      if (total !== null && given.bytes > total) {
        const owner = whose === 'device' ? `device ${target.device}` : `the host of ${target.device}`
        throw memoryError('invalid', `${given.bytes} bytes are more than ${owner} has: ${total}`, { field: 'input.bytes' })
      }
      return { ...given, target, ownedBy: 'key' as const, timeToLiveMs: milliseconds(timeToLiveS) }
    },
    route: { method: 'post', path: '/memory/allocations', body: 'Allocate', answers: 'The result' },
  },
})
