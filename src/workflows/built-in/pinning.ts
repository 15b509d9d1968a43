/**
 * The models of a request, each pinned to its bytes: by the input where their hashes were known at the submit, else by
 * what the session's first steps find (`model.hash`).
 */
import { z } from 'zod'
import {
  AdapterPin,
  Control,
  EmbeddingPin,
  Hires,
  ImageRequest,
  ModelName,
  type Preprocessor,
  upscalers,
  VaePin,
  type ModelPin,
  type WantedModel,
} from '../../domains/values.ts'
import { preprocessorWith } from '../../domains/preprocessors.ts'
import { wantedOf } from '../../models/entry.ts'
import type { Kind } from '../../models/verdict.ts'
import { Stages, upscalersOf } from './postprocess-input.ts'
import { classifiersOf, Safety } from './safety-input.ts'

const Unpinned = z.strictObject({ id: z.string(), bodyHash: z.string().nullable() })

/** A preprocessor whose network may have no hash yet. */
export const UnpinnedPreprocessor = preprocessorWith(Unpinned)
export type UnpinnedPreprocessor = z.infer<typeof UnpinnedPreprocessor>

/** An image request whose models may have no hash yet. */
export const PinnedInput = ImageRequest.extend({
  model: ModelName,
  /** null when nobody has hashed the model before: the session's first step does. */
  modelHash: z.string().nullable(),
  vae: VaePin.optional(),
  hires: Hires.extend({ upscaler: z.union([z.enum(upscalers), Unpinned]) }).optional(),
  control: Control.extend({ model: Unpinned, preprocessor: UnpinnedPreprocessor.optional() }).array().optional(),
  adapters: AdapterPin.extend({ model: Unpinned }).array().optional(),
  embeddings: EmbeddingPin.extend({ model: Unpinned }).array().optional(),
  postprocess: Stages.optional(),
  safety: Safety.optional(),
})
type Input = z.infer<typeof PinnedInput>
type Beside = Partial<Pick<Input, 'hires' | 'control' | 'adapters' | 'embeddings' | 'postprocess' | 'safety'>>

/** What was found where the input does not say it; absent in sessions that began under a version without it. */
export interface Pinned {
  input: Input
  modelHash?: string | null
  /** Of what is used beside the model, by kind and name. */
  hashes?: Record<string, string>
}

const keyOf = (kind: Kind, id: string): string => `${kind} ${id}`

/** The network of a preprocessor, if it needs one. */
export const unpinnedNetwork = (preprocessor: UnpinnedPreprocessor | undefined) =>
  preprocessor && 'model' in preprocessor ? [{ ...preprocessor.model, kind: 'preprocessor' as const }] : []

/** What a request uses beside the model that draws. */
export const besideOf = ({
  hires,
  control = [],
  adapters = [],
  embeddings = [],
  postprocess,
  safety,
}: Beside): (WantedModel & { kind: Kind })[] => [
  ...new Map(
    [...(typeof hires?.upscaler === 'object' ? [hires.upscaler] : []), ...upscalersOf(postprocess)].map((upscaler) => [
      upscaler.id,
      { ...upscaler, kind: 'upscaler' as const },
    ]),
  ).values(),
  ...new Map(control.map(({ model }) => [model.id, { ...model, kind: 'controlnet' as const }])).values(),
  ...new Map(control.flatMap(({ preprocessor }) => unpinnedNetwork(preprocessor)).map((network) => [network.id, network])).values(),
  ...adapters.map(({ model }) => ({ ...model, kind: 'lora' as const })),
  ...embeddings.map(({ model }) => ({ ...model, kind: 'embedding' as const })),
  ...classifiersOf(safety).map((classifier) => ({ ...classifier, kind: 'classifier' as const })),
]

/** Models that have no hash yet, in the order in which they get one. */
export function unpinned({ input, modelHash, hashes = {} }: Pinned): WantedModel[] {
  const own = (input.modelHash ?? modelHash ?? null) === null ? [{ id: input.model, bodyHash: null }] : []
  return [...own, ...besideOf(input).filter(({ kind, id, bodyHash }) => bodyHash === null && hashes[keyOf(kind, id)] === undefined)]
}

/** The first of them has this hash. */
export function withHash(context: Pinned, bodyHash: string): Pick<Pinned, 'modelHash' | 'hashes'> {
  const [next] = unpinned(context)
  return next?.kind === undefined ? { modelHash: bodyHash } : { hashes: { ...context.hashes, [keyOf(next.kind, next.id)]: bodyHash } }
}

/** The classifiers that look at each picture, each pinned. */
export const pinnedClassifiers = ({ input: { safety }, hashes = {} }: Pick<Pinned, 'input' | 'hashes'>): ModelPin[] =>
  classifiersOf(safety).map(({ id, bodyHash }) => ({ id, bodyHash: bodyHash ?? hashes[keyOf('classifier', id)] ?? '' }))

/** A network that enlarges, pinned. */
export const pinnedUpscaler = ({ hashes = {} }: Pick<Pinned, 'hashes'>, { id, bodyHash }: z.infer<typeof Unpinned>): ModelPin => ({
  id,
  bodyHash: bodyHash ?? hashes[keyOf('upscaler', id)] ?? '',
})

/** What is made of a picture, its network pinned as `pin` says. */
export const pinnedPreprocessor = (
  preprocessor: UnpinnedPreprocessor,
  pin: (network: z.infer<typeof Unpinned>) => ModelPin,
): Preprocessor => ('model' in preprocessor ? { ...preprocessor, model: pin(preprocessor.model) } : preprocessor)

/** The request with every model pinned; one without a hash yet has none. */
export function pinnedRequest({ input, modelHash, hashes = {} }: Pinned): ImageRequest {
  const { model, modelHash: own, vae, hires, control, adapters, embeddings, postprocess: _done, safety: _, ...rest } = input
  const pinOf = (kind: Kind, { id, bodyHash }: z.infer<typeof Unpinned>): ModelPin => ({
    id,
    bodyHash: bodyHash ?? hashes[keyOf(kind, id)] ?? '',
  })
  const pinned =
    (kind: Kind) =>
    <Pin extends { model: { id: string; bodyHash: string | null } }>(pin: Pin): Pin & { model: ModelPin } => ({
      ...pin,
      model: pinOf(kind, pin.model),
    })
  return {
    model: wantedOf({ id: model, bodyHash: own ?? modelHash ?? '', vae }),
    ...rest,
    ...(hires && {
      hires: { ...hires, upscaler: typeof hires.upscaler === 'string' ? hires.upscaler : pinOf('upscaler', hires.upscaler) },
    }),
    ...(control && {
      control: control.map(pinned('controlnet')).map(({ preprocessor, ...each }) => ({
        ...each,
        ...(preprocessor && { preprocessor: pinnedPreprocessor(preprocessor, (network) => pinOf('preprocessor', network)) }),
      })),
    }),
    ...(adapters && { adapters: adapters.map(pinned('lora')) }),
    ...(embeddings && { embeddings: embeddings.map(pinned('embedding')) }),
  }
}
