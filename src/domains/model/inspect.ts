import { z } from 'zod'
import { stateOf, states, Verdict } from '../../models/verdict.ts'
import { operation } from '../operation.ts'
import { Count, Instant } from '../values.ts'
import { Named, onDisk, shelved } from './on-disk.ts'

const { format, kind, family, variants, precision, quantisation, parameters, components, lacks, figures, metadata, notes, reason } =
  Verdict.shape

/** What the headers of a model say, read anew on a host that has it. Nothing behind a header is read. */
export const inspect = operation({
  ...onDisk,
  timeoutMs: 120_000,
  output: z
    .strictObject({
      id: z.string(),
      path: z.string(),
      state: z.enum(states),
      format,
      kind,
      family,
      variants,
      precision,
      quantisation,
      parameters,
      components,
      lacks,
      figures,
      metadata,
      notes,
      reason,
      bytes: Count,
      modifiedAt: Instant,
      files: z.array(z.strictObject({ path: z.string(), bytes: Count })),
      /** Files beyond those that are named. */
      filesMore: Count,
    })
    .meta({ id: 'ModelInspected' }),
  async run({ model }, tools) {
    const { path, bytes, modifiedAt, files, verdict } = await tools.shelf.lying(model)
    const { dialect: _d, encoder: _e, algorithms: _a, targets: _t, architecture: _r, ...told } = verdict
    return {
      id: model.id,
      path,
      state: stateOf(verdict),
      ...told,
      bytes,
      modifiedAt,
      files: files.slice(0, maxFiles).map((file) => ({ path: file.path, bytes: file.size })),
      filesMore: Math.max(0, files.length - maxFiles),
    }
  },
  command: {
    title: 'Inspect a model',
    description: 'Reads the headers of a model anew, on a host that has it: what it is, its parts, its author’s words, its files.',
    input: Named,
    resolve: shelved,
    route: { method: 'post', path: '/models/{model}/inspect', query: ['kind'], answers: 'What its headers say' },
  },
})

/** A folder of shards has dozens; more would only swell the session that answers. */
const maxFiles = 200
