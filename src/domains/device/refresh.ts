import { z } from 'zod'
import { brief, DeviceName } from '../command.ts'
import { operation } from '../operation.ts'
import { Instant, Target } from '../values.ts'

/** Publishes the device's figures now. */
export const refresh = operation({
  ...brief,
  input: z.strictObject({ target: Target }),
  output: z.strictObject({ sampledAt: Instant }).meta({ id: 'DeviceRefreshed' }),
  run: async ({ target }, tools) => ({ sampledAt: await tools.device(target).publish() }),
  command: {
    title: 'Refresh a device',
    description: 'Asks the worker of a device to take its figures and publish them now.',
    input: z.strictObject({ device: DeviceName }),
    resolve: async ({ device }, catalogue) => ({ target: await catalogue.device(device, 'input.device') }),
    route: { method: 'post', path: '/devices/{id}/refresh', params: { id: 'device' }, answers: 'When the figures were taken' },
  },
})
