import { z } from 'zod'
import { maxFindings } from '../../models/validate.ts'
import { operation } from '../operation.ts'
import { Count, Sha256 } from '../values.ts'
import { Named, onDisk, shelved } from './on-disk.ts'

const Finding = z.strictObject({
  file: z.string().describe('relative to the model’s folder; empty for a model that is one file'),
  tensor: z.string().nullable(),
  code: z.string(),
  message: z.string(),
})

/**
 * Reads a model whole: structure, sizes and offsets of its tensors, numbers that are none, and its hash against the
 * recorded one; with progress in bytes.
 * @throws DarkroomError `model.missing`, `model.unreadable`
 */
export const validate = operation({
  ...onDisk,
  timeoutMs: 24 * 3_600_000,
  output: z
    .strictObject({
      id: z.string(),
      path: z.string(),
      /** Whether nothing was found that keeps it from being what it says; numbers that are none do not. */
      isValid: z.boolean(),
      bytes: Count,
      seconds: z.number(),
      findings: z.array(Finding),
      /** Findings beyond those that are named. */
      findingsMore: Count,
      bodyHash: Sha256,
      sha256: Sha256.nullable(),
      /** The body hash that it had when it was hashed; null when it never was. */
      recordedHash: Sha256.nullable(),
    })
    .meta({ id: 'ModelValidated' }),
  async run({ model }, tools) {
    const began = performance.now()
    const { path, recordedHash, found, findings, isValid, bytes } = await tools.shelf.validated(model)
    return {
      id: model.id,
      path,
      isValid,
      bytes,
      seconds: (performance.now() - began) / 1000,
      findings: findings.slice(0, maxFindings),
      findingsMore: Math.max(0, findings.length - maxFindings),
      bodyHash: found.bodyHash,
      sha256: found.sha256,
      recordedHash,
    }
  },
  command: {
    title: 'Validate a model',
    description:
      'Reads a model whole, on a host that has it, and says by tensor what is wrong: structure, sizes, offsets, numbers that are none, and its hash against the recorded one.',
    input: Named,
    resolve: shelved,
    route: { method: 'post', path: '/models/{model}/validate', query: ['kind'], answers: 'What was found' },
  },
})
