/** The operations of the domain `memory` as workflows. What they make belongs to the caller's API key and has a time to live. */
import { z } from 'zod'
import { memory } from '../../domains/memory/index.ts'
import { AllocationId, Kind, Placement } from '../../domains/memory/schema.ts'
import type { Target } from '../../domains/values.ts'
import { DarkroomError } from '../../errors.ts'
import { Device } from './device.ts'
import { operationWorkflow } from '../one-step.ts'
import type { Catalogue, Workflow } from '../define.ts'
import { memoryError } from '../../domains/memory/errors.ts'

export const Offset = z.int().min(0)
export const Bytes = z.int().min(1)
export const make = {
  kind: Kind.default('device').describe('what kernels work on, or host memory that the device reads (upload) or writes (readback)'),
  placement: Placement.default('automatic').describe('placed allocations share arenas and move when these are defragmented'),
  timeToLiveS: z.number().min(1).max(86_400).default(600).describe('seconds until it goes by itself; it can be renewed'),
}
export const milliseconds = (seconds: number): number => Math.round(seconds * 1000)

/** The worker that holds an allocation. @throws DarkroomError `memory.unknown` when its device epoch has ended */
export async function holder(id: string, field: string, catalogue: Catalogue): Promise<Target> {
  const [device = '', epoch = ''] = id.split('.')
  const target = await catalogue.device(device, field).catch((error: unknown) => {
    if (error instanceof DarkroomError && error.code === 'device.unknown') return undefined
    throw error
  })
  if (target?.epoch.startsWith(epoch)) return target
  throw memoryError('unknown', `allocation ${id} went with its device epoch`, { field })
}

export const memoryWorkflows: readonly Workflow[] = [
  operationWorkflow(memory, 'memory.allocate', {
    title: 'Allocate memory',
    description: 'Real memory of a device, or of its host, that belongs to the caller until its time is over.',
    input: z.strictObject({ device: Device, bytes: Bytes, ...make }),
    whole: async ({ device, timeToLiveS, ...given }, catalogue) => ({
      ...given,
      target: await catalogue.device(device, 'input.device'),
      ownedBy: 'key',
      timeToLiveMs: milliseconds(timeToLiveS),
    }),
  }),
  operationWorkflow(memory, 'memory.release', {
    title: 'Release memory',
    description: 'Gives an allocation back before its time.',
    input: z.strictObject({ id: AllocationId }),
    whole: async ({ id }, catalogue) => ({
      id,
      target: await holder(id, 'input.id', catalogue),
      asOperator: catalogue.mayOperate,
    }),
  }),
  operationWorkflow(memory, 'memory.renew', {
    title: 'Renew an allocation',
    description: 'Begins the time of an allocation anew.',
    input: z.strictObject({ id: AllocationId, timeToLiveS: make.timeToLiveS }),
    whole: async ({ id, timeToLiveS }, catalogue) => ({
      id,
      target: await holder(id, 'input.id', catalogue),
      timeToLiveMs: milliseconds(timeToLiveS),
      asOperator: catalogue.mayOperate,
    }),
  }),
  operationWorkflow(memory, 'memory.copy', {
    title: 'Copy memory',
    description: 'Within one device, in any direction: host to host, host to device and back, device to device.',
    input: z.strictObject({
      from: AllocationId,
      fromAt: Offset.default(0),
      to: AllocationId,
      at: Offset.default(0),
      bytes: Bytes.optional().describe('default: as much as both hold from there on'),
      verify: z.boolean().default(false).describe('compare the checksums of both sides afterwards'),
    }),
    whole: async (given, catalogue) => {
      const target = await holder(given.from, 'input.from', catalogue)
      const other = await holder(given.to, 'input.to', catalogue)
      if (other.worker !== target.worker)
        throw memoryError('elsewhere', `${given.from} and ${given.to} are on two devices`, { field: 'input.to' })
      return { ...given, bytes: given.bytes ?? null, target, asOperator: catalogue.mayOperate }
    },
  }),
  operationWorkflow(memory, 'memory.checksum', {
    title: 'Checksum of memory',
    description: 'CRC-32 of a range of an allocation.',
    input: z.strictObject({ id: AllocationId, at: Offset.default(0), bytes: Bytes.optional().describe('default: to the end') }),
    whole: async ({ id, at, bytes = null }, catalogue) => ({
      id,
      at,
      bytes,
      target: await holder(id, 'input.id', catalogue),
      asOperator: catalogue.mayOperate,
    }),
  }),
  operationWorkflow(memory, 'memory.defragment', {
    title: 'Defragment memory',
    description: 'Moves placed allocations of a device together and gives emptied arenas back; Python’s own pool is emptied, not moved.',
    input: z.strictObject({ device: Device, maxBytes: Bytes.optional().describe('most bytes to move; default: no limit') }),
    scope: 'operate',
    whole: async ({ device, maxBytes = null }, catalogue) => ({ target: await catalogue.device(device, 'input.device'), maxBytes }),
  }),
]
