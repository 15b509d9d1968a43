import { z } from 'zod'
import { Component } from '../../models/verdict.ts'
import { modelError } from './errors.ts'
import { operation } from '../operation.ts'
import { Count } from '../values.ts'
import { Named, onDisk, shelved } from './on-disk.ts'

/**
 * The parts of a model that are loaded by themselves, read anew on a host that has it: how large, in which precision,
 * and where they are.
 * @throws DarkroomError `model.unusable` for what is broken or not understood
 */
export const components = operation({
  ...onDisk,
  timeoutMs: 120_000,
  output: z
    .strictObject({ id: z.string(), path: z.string(), bytes: Count, components: z.array(Component) })
    .meta({ id: 'ModelComponents' }),
  async run({ model }, tools) {
    const { path, verdict } = await tools.shelf.lying(model)
    if (verdict.reason)
      throw modelError('unusable', `the parts of ${model.id} are not known: ${verdict.reason.message}`, {
        field: 'input.model',
        remedy: verdict.reason.remedy,
      })
    const bytes = verdict.components.reduce((sum, component) => sum + component.bytes, 0)
    return { id: model.id, path, bytes, components: verdict.components }
  },
  command: {
    title: 'List the parts of a model',
    description: 'Its network, VAE and text encoders as they lie on disk: how large, in which precision, and where.',
    input: Named,
    resolve: shelved,
    route: { method: 'post', path: '/models/{model}/components', query: ['kind'], answers: 'Its parts' },
  },
})
