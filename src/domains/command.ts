/** What the commands of several domains share: a request names a device, the step goes to its worker. */
import { z } from 'zod'
import type { Target } from './values.ts'

/** Name of a device in a request. */
export const DeviceName = z.string().min(1).max(200).describe('id of the device, or `cuda:0` while that means one device only')

const needs = ({ target }: { target: Target }): { target: Target } => ({ target })

/** A command that ends in a moment. */
export const brief = { lane: 'control', attempts: 1, timeoutMs: 60_000, needs } as const
/** One that moves bytes, and may take an hour. */
export const lasting = { ...brief, timeoutMs: 3_600_000 } as const
