/** The operations of the domain `device` as workflows. */
import { z } from 'zod'
import { device } from '../../domains/device/index.ts'
import { operationWorkflow } from '../one-step.ts'
import type { Workflow } from '../define.ts'

export const Device = z.string().min(1).max(200).describe('id of the device, or `cuda:0` while that means one device only')

export const deviceWorkflows: readonly Workflow[] = [
  operationWorkflow(device, 'device.optimize', {
    title: 'Optimize a device',
    description: 'Lets go of caches and of models that nobody uses; the figures before and after come back.',
    input: z.strictObject({ device: Device, idleModels: z.boolean().default(true).describe('let go of models that no session uses, too') }),
    scope: 'operate',
    whole: async (given, catalogue) => ({ target: await catalogue.device(given.device, 'input.device'), idleModels: given.idleModels }),
  }),
  operationWorkflow(device, 'device.refresh', {
    title: 'Refresh a device',
    description: 'Asks the worker of a device to take its figures and publish them now.',
    input: z.strictObject({ device: Device }),
    whole: async (given, catalogue) => ({ target: await catalogue.device(given.device, 'input.device') }),
  }),
]
