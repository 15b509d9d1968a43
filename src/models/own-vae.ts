/** A VAE that somebody chose for a model by an annotation: pictures are decoded with it in place of the model's own. */
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { pinned, type Entry, type VaePin } from './entry.ts'
import { modelError } from './errors.ts'
import type { Listed } from './listing.ts'
import type { ModelPart } from './made.ts'
import { needsOf } from './needs.ts'

/**
 * The VAE that is meant, by id or body hash; `field`: what says so.
 * @throws DarkroomError `model.unknown`, `model.unusable`
 */
export function vaeFor(model: Listed, said: string, all: readonly Listed[], field: string): Listed {
  const meant = all.filter(({ id, bodyHash }) => id === said || bodyHash === said.toLowerCase())
  const vae = meant.find(({ entry }) => entry.verdict.kind === 'vae') ?? meant[0]
  if (!vae)
    throw modelError('unknown', `there is no VAE ${JSON.stringify(said)}`, {
      field,
      remedy: 'Name one that GET /v1/models?kind=vae lists, by its id or its body hash.',
    })
  const why = whyUnfit(model.entry, vae.entry)
  if (why === undefined) return vae
  throw modelError('unusable', `${JSON.stringify(vae.id)} cannot be the VAE of model ${JSON.stringify(model.id)}: ${why}`, {
    field,
    remedy: 'Name a VAE of the model’s family: GET /v1/models?kind=vae lists them with their latent channels.',
  })
}

/** The VAE that a model is annotated with, as it is called now. @throws DarkroomError `model.unusable` */
export function annotatedVae(model: Listed, all: readonly Listed[], field: string): VaePin | undefined {
  const said = model.annotation?.vae
  if (!said) return undefined
  const { bodyHash } = said
  const same = all.filter((each) => each.bodyHash === bodyHash && each.entry.verdict.kind === 'vae')
  const vae = same.find(({ id }) => id === said.id) ?? same[0]
  if (vae) return { id: vae.id, bodyHash }
  const told = `model ${JSON.stringify(model.id)} is annotated with the VAE ${JSON.stringify(said.id)}`
  throw modelError('unusable', `${told}, and no model folder has one with its body ${bodyHash.slice(0, 10)}`, {
    field,
    remedy: 'Put the VAE into a model folder again, or annotate the model with another one or none.',
  })
}

/** What its headers tell against it; those of Stable Diffusion 1 and XL tell nothing of their families. */
function whyUnfit({ drawing, verdict: model }: Entry, { verdict: vae }: Entry): string | undefined {
  if (vae.kind !== 'vae') return `it is no VAE but a ${vae.kind}`
  if (vae.reason) return vae.reason.message
  if (vae.format !== 'safetensors' && vae.format !== 'diffusers') return `it is in the format ${vae.format}`
  if (vae.variants.includes('tiny')) return 'it is a small one for previews'
  if (!drawing || !model.family) return 'the model does not draw'
  if (vae.family && vae.family !== model.family) return `it is of the family ${vae.family}, and the model of ${model.family}`
  const own = model.components.find(({ kind }) => kind === 'vae')?.figures
  const latentChannels = own?.latentChannels ?? needsOf(model.family, model.variants, model.figures.contextSize)?.latentChannels
  const figures = { latentChannels, channels: own?.channels }
  for (const [name, words] of [
    ['latentChannels', 'latent channels'],
    ['channels', 'channels in its innermost block'],
  ] as const) {
    const [its, wanted] = [vae.figures[name], figures[name]]
    if (its !== undefined && wanted !== undefined && its !== wanted) return `it has ${its} ${words}, and the model’s have ${wanted}`
  }
  return undefined
}

/**
 * A pinned model as the child is told of it. With a VAE in place of its own it is another model to the child: another
 * hash, of both bodies, and that VAE's weights, for which the configuration of its own one holds too.
 * @throws DarkroomError `model.missing` when it has not been hashed
 */
export function referenceTo(wanted: { id: string; vae?: VaePin | undefined }, entry: Entry, vae: Entry | undefined) {
  const { id, bodyHash, path, family } = pinned(wanted.id, entry)
  const parts = vae ? partsWith(entry, vae) : entry.made?.parts
  const both = createHash('sha256').update(`${bodyHash}\n${wanted.vae?.bodyHash}`).digest('hex')
  return { id, bodyHash: wanted.vae ? both : bodyHash, path, family, ...(parts && { parts }) }
}

function partsWith({ made, path }: Entry, vae: Entry): ModelPart[] {
  const parts = made?.parts ?? []
  const folder = parts.find(({ name }) => name === 'vae')?.folder ?? join(path, 'vae')
  const part: ModelPart = vae.isFolder
    ? { name: 'vae', folder: vae.path, weights: null }
    : { name: 'vae', folder, weights: { path: vae.path, prefix: '' } }
  return [...parts.filter(({ name }) => name !== 'vae'), part]
}
