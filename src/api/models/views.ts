/** Models as HTTP shows them: what lies in the model folders of all hosts, whether it can be used or not. */
import { z } from 'zod'
import { ImageRequest, VaePin } from '../../domains/values.ts'
import type { WorkerRecord } from '../../farm/record.ts'
import type { Annotation } from '../../models/annotations.ts'
import type { Listed } from '../../models/listing.ts'
import type { ShelfRecord } from '../../models/shelf.ts'
import {
  Component,
  Figures,
  formats,
  kinds,
  knownFamilies,
  Metadata,
  precisions,
  preprocessorTasks,
  Quantisation,
  Reason,
  stateOf,
  variants,
} from '../../models/verdict.ts'
import { iso, isoOrNull, orNull, Time } from '../view.ts'

export const modelStatuses = ['usable', 'unsupported', 'unknown', 'refused', 'broken'] as const

export const HolderView = z.strictObject({
  shelf: z.string(),
  path: z.string().meta({ description: 'of its file or folder, absolute' }),
  root: z.string().meta({ description: 'the configured folder that holds it' }),
  bytes: z.int(),
  modifiedAt: Time,
  bodyHash: z.string().nullable(),
  workers: z.array(z.string()).meta({ description: 'workers that have it now' }),
})

/** One line of text as somebody types it: nothing that a terminal or a page would act on. */
const Line = z
  .string()
  .trim()
  .regex(/^[^\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Bidi_Control}]*$/u, 'must be one line without control characters')
const Settings = ImageRequest.pick({ width: true, height: true, steps: true, guidance: true, sampler: true }).partial()

/** What somebody says of a model, as a request; what is left out is nothing. */
export const AnnotateModel = z
  .strictObject({
    title: Line.max(200).default(''),
    tags: z.array(Line.min(1).max(64)).max(32).default([]),
    notes: z
      .string()
      .max(8000)
      .regex(/^(?:[^\p{Cc}\p{Cs}\p{Bidi_Control}]|[\t\n\r])*$/u, 'must be text without control characters')
      .default(''),
    settings: Settings.default({}).meta({
      description: 'what a request for a picture leaves out, before what the model recommends itself',
    }),
    vae: z.string().min(1).max(200).nullable().default(null).meta({
      description: 'a VAE by its id or body hash, which decodes pictures in place of the model’s own',
    }),
  })
  .meta({ id: 'AnnotateModel' })

export const AnnotationView = z
  .strictObject({
    title: z.string(),
    tags: z.array(z.string()),
    notes: z.string(),
    settings: Settings,
    vae: VaePin.nullable(),
    changedAt: Time,
  })
  .meta({ id: 'ModelAnnotation' })

export const presentAnnotation = ({ changedAt, settings, vae = null, ...told }: Annotation): z.infer<typeof AnnotationView> => ({
  ...told,
  vae,
  settings: Settings.parse(settings),
  changedAt: iso(changedAt),
})

export const ModelView = z
  .strictObject({
    id: z.string().meta({ description: 'what a request names it by; URL-encoded in a path' }),
    name: z.string(),
    kind: z.enum(kinds),
    family: z.enum(knownFamilies).nullable(),
    variants: z.array(z.enum(variants)),
    format: z.enum(formats),
    status: z.enum(modelStatuses).meta({
      description:
        '`usable`: pictures can be drawn with it; `unsupported`: it is understood, and no picture is drawn with it alone: `why` says what it is or lacks; else `reason` says what is wrong',
    }),
    why: z.string().nullable().meta({ description: 'what keeps it from being usable, in words' }),
    reason: orNull(Reason),
    precision: z.enum(precisions).nullable(),
    quantisation: orNull(Quantisation),
    parameters: z.int(),
    task: z.enum(preprocessorTasks).nullable().meta({ description: 'what a preprocessor sees in a picture; null of any other' }),
    mostReferences: z.int().meta({ description: 'most pictures that an edit may show it; 0: it sees none' }),
    components: z.array(Component),
    figures: Figures,
    metadata: Metadata,
    notes: z.array(z.string()),
    bytes: z.int(),
    bodyHash: z.string().nullable().meta({ description: 'SHA-256 that sessions are pinned to; null until it has been hashed' }),
    sha256: z.string().nullable().meta({ description: 'of the file, of a model that is one; null until it has been hashed' }),
    autoV2: z.string().nullable(),
    shortHash: z.string().nullable().meta({ description: 'the first hash that A1111 had' }),
    annotation: AnnotationView.nullable().meta({ description: 'what people say of it' }),
    where: z.array(HolderView),
  })
  .meta({ id: 'Model' })

const ShelfView = z.strictObject({
  id: z.string(),
  host: z.string(),
  folders: z.array(z.string()),
  problems: z.array(z.strictObject({ path: z.string(), problem: z.string() })),
  scannedAt: Time.nullable(),
  isOwn: z.boolean().meta({ description: 'of the host of this API' }),
})

export const ModelPage = z.strictObject({
  models: z.array(ModelView),
  total: z.int().meta({ description: 'how many match, on all pages' }),
  next: z.string().nullable().meta({ description: 'cursor of the next page; null on the last' }),
  shelves: z.array(ShelfView),
})

export const RescanView = z.strictObject({ shelves: z.array(z.string()) })

export const statusOf = ({ entry }: Listed): (typeof modelStatuses)[number] => {
  if (entry.drawing) return 'usable'
  const state = stateOf(entry.verdict)
  return state === 'understood' ? 'unsupported' : state
}

export function presentModel(listed: Listed, workers: readonly WorkerRecord[]): z.infer<typeof ModelView> {
  const { id, entry, bodyHash, annotation } = listed
  const { verdict, identity } = entry
  const sha256 = identity?.sha256 ?? null
  return {
    id,
    name: entry.name,
    kind: verdict.kind,
    family: verdict.family ?? null,
    variants: verdict.variants,
    format: verdict.format,
    status: statusOf(listed),
    why: entry.obstacle,
    reason: verdict.reason ?? null,
    precision: verdict.precision ?? null,
    quantisation: verdict.quantisation ?? null,
    parameters: verdict.parameters,
    task: verdict.task ?? null,
    mostReferences: entry.drawing?.limits?.references ?? 0,
    components: verdict.components,
    figures: verdict.figures,
    metadata: verdict.metadata,
    notes: verdict.notes,
    bytes: entry.bytes,
    bodyHash,
    sha256,
    autoV2: sha256?.slice(0, 10) ?? null,
    shortHash: identity?.shortHash ?? null,
    annotation: annotation ? presentAnnotation(annotation) : null,
    where: presentHolders(listed, workers),
  }
}

export const presentHolders = ({ holders }: Listed, workers: readonly WorkerRecord[]): z.infer<typeof HolderView>[] =>
  holders.map(({ shelf, entry: held }) => ({
    shelf,
    path: held.path,
    root: held.root,
    bytes: held.bytes,
    modifiedAt: iso(held.modifiedAt),
    bodyHash: held.identity?.bodyHash ?? null,
    workers: workers.filter((worker) => worker.shelf === shelf).map((worker) => worker.id),
  }))

export const presentShelf = ({ id, host, folders, problems, scannedAt }: ShelfRecord, own: string): z.infer<typeof ShelfView> => ({
  id,
  host,
  folders,
  problems,
  scannedAt: isoOrNull(scannedAt),
  isOwn: id === own,
})
