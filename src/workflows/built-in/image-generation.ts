import { assign, enqueueActions, setup, spawnChild } from 'xstate'
import { z } from 'zod'
import type { Judgement } from '../../domains/postprocessing/safety/judgement.ts'
import { SavedImage } from '../../domains/postprocessing/save.ts'
import { Sha256, type ImageRequest } from '../../domains/values.ts'
import type { WireError } from '../../errors.ts'
import { defineWorkflow } from '../define.ts'
import { steps } from '../step.ts'
import { completeBeside } from './adapter-input.ts'
import { completeControl } from './control-input.ts'
import { completeDetail } from './detail-input.ts'
import { checkLimits } from './family-limits.ts'
import { classOf, completeFast } from './fast-input.ts'
import { completeHires } from './hires-input.ts'
import { completedFields, Input, wholeForm } from './image-form.ts'
import { drawingOf } from './image-drawing.ts'
import { withinImage } from './image-progress.ts'
import { isToCheck, judgedAs, checkOf, mayPassUnchecked, mayRedraw, outputOf, uncheckedOf, withRedraw } from './image-safety.ts'
import { askedAgain } from './image-asked.ts'
import {
  current,
  enlargingOf,
  imageOf,
  isLost,
  passOver,
  pictureOf,
  pinOf,
  regionOf,
  regionOfPixels,
  requestOf,
  ResolvedInput,
  stepsOf,
  type Context,
  type DecodeOutput,
  type DenoiseOutput,
  type HashDone,
  type ImageEvent,
} from './image-state.ts'
import { completeMemory, memoryOf } from './memory-input.ts'
import { finishedSize, firstPass, hiresPass, partsOf } from './passes.ts'
import { completePicture } from './picture-input.ts'
import { pinnedRequest, unpinned, withHash } from './pinning.ts'
import { FinishedImage, imageAfter, isFinished, stepAfter } from './postprocess.ts'
import { completePostprocess } from './postprocess-input.ts'
import { completePrompt, readingOf } from './prompt-input.ts'
import { completeReferences, sizedLike } from './reference-input.ts'
import { checkRedraws, completeSafety } from './safety-input.ts'
import { checkSize, checkTold } from './size-limits.ts'

/** `blocked`: pictures that a policy keeps back. Their bytes are for callers with the scope `operate`, for a while. */
const Output = z.strictObject({
  images: z.array(FinishedImage),
  blocked: z.array(SavedImage.omit({ sha256: true, mediaType: true }).extend({ artifact: Sha256 })).optional(),
})

const maxLost = 5
/** Where an image begins again whose tensors are gone. */
const again = '#image-generation.drawing.encoding'
/**
 * [hash] → encode → [encode picture] → for each image: denoise → [enlarge → denoise] → decode → for each
 * region: encode picture → denoise → decode → [check] → and then save → [upscale → keep, enhance, convert], not waited
 * for before the next image. What one step leaves for the next is a hint: when it is gone, the machine encodes anew for
 * it, as on `class.lost`.
 */
const machine = setup({
  types: {
    context: {} as Context,
    input: {} as ResolvedInput,
    output: {} as z.infer<typeof Output>,
    events: {} as ImageEvent,
  },
  actors: steps(
    'model.hash',
    'model.resolve',
    'inference.encode',
    'inference.encode_picture',
    'inference.denoise',
    'inference.enlarge',
    'inference.decode',
    'postprocessing.check',
    'postprocessing.save',
    'postprocessing.upscale',
    'postprocessing.keep',
    'postprocessing.enhance',
    'postprocessing.convert',
  ),
  actions: {
    takeHash: assign(({ context, event }) => withHash(context, (event as unknown as HashDone).output.model.bodyHash)),
    drawAgain: assign({ lost: ({ context }) => context.lost + 1 }),
    keepDenoised: assign({ denoised: ({ event }) => (event as unknown as { output: DenoiseOutput }).output }),
    // Bits that one decode has moved stay moved in the next one's picture.
    keepDrawn: assign({ drawn: ({ context, event }) => ({ ...context.drawn, ...(event as unknown as { output: DecodeOutput }).output }) }),
    keepJudgement: assign({ judgement: ({ event }) => (event as unknown as { output: Judgement }).output }),
    keepUnchecked: assign({
      judgement: ({ context, event }) => uncheckedOf(context, (event as unknown as { error: WireError }).error.message),
    }),
    forgetDrawn: assign({ denoised: null, enlarged: null, drawn: null }),
    redraw: assign(({ context }) => withRedraw(context)),
  },
  guards: {
    mayDrawAgain: ({ context, event }) => context.lost < maxLost && isLost((event as unknown as { error: unknown }).error),
    isPinned: ({ context }) => unpinned(context).length === 0,
    isLastHash: ({ context }) => unpinned(context).length === 1,
    hasPicture: ({ context }) => context.input.picture !== undefined,
    isToEnlarge: ({ context }) => context.input.hires !== undefined,
    isToDetail: ({ context }) => (context.input.detail?.length ?? 0) > 0,
    hasMoreRegions: ({ context }) => (context.region ?? 0) + 1 < (context.input.detail?.length ?? 0),
    isToCheck: ({ context }) => isToCheck(context),
    mayRedraw: ({ context, event }) => mayRedraw(context, (event as unknown as { output: Judgement }).output),
    mayPassUnchecked: ({ context }) => mayPassUnchecked(context),
    hasMore: ({ context }) => context.todo.length > 0,
    isComplete: ({ context }) => isFinished(context),
  },
}).createMachine({
  id: 'image-generation',
  context: ({ input }) => ({
    input,
    modelHash: null,
    conditioning: null,
    todo: Array.from({ length: input?.count ?? 0 }, (_, image) => image),
    denoised: null,
    images: {},
    lost: 0,
  }),
  initial: 'pinning',
  on: {
    'xstate.done.actor.save.*': {
      actions: enqueueActions(({ context, event, enqueue }) => {
        const image = imageAfter(context, event)
        enqueue.assign({ images: { ...context.images, [imageOf(event)]: image } })
        const next = stepAfter(context, event, image)
        if (next) enqueue.spawnChild(...next)
      }),
    },
    'xstate.error.actor.save.*': {
      guard: 'mayDrawAgain',
      actions: assign({ todo: ({ context, event }) => [...context.todo, imageOf(event)], lost: ({ context }) => context.lost + 1 }),
    },
  },
  states: {
    pinning: { always: [{ guard: 'isPinned', target: 'drawing' }, { target: 'hashing' }] },
    hashing: {
      invoke: {
        id: 'hash',
        src: 'model.hash',
        input: ({ context }) => ({ model: unpinned(context)[0] ?? { id: '', bodyHash: null } }),
        onDone: [
          { guard: 'isLastHash', target: 'drawing', actions: 'takeHash' },
          { target: 'hashing', reenter: true, actions: 'takeHash' },
        ],
      },
    },
    // Of sessions that an earlier version of Darkroom has begun.
    resolving: {
      invoke: { id: 'resolve', src: 'model.resolve', input: ({ context }) => ({ model: pinOf(context) }), onDone: 'drawing' },
    },
    drawing: {
      initial: 'encoding',
      on: { 'class.lost': { target: '.encoding', reenter: true } },
      states: {
        encoding: {
          entry: assign({ conditioning: null, pictureLatents: null, denoised: null, enlarged: null, drawn: null }),
          invoke: {
            id: 'encode',
            src: 'inference.encode',
            input: ({ context }) => {
              const { model, references, adapters, embeddings, ...request } = pinnedRequest(context)
              return {
                model,
                ...readingOf(request),
                ...(references && { references }),
                ...(adapters && { adapters }),
                ...(embeddings && { embeddings }),
                ...memoryOf(request),
                ...classOf(request),
              }
            },
            onDone: { target: 'encoded', actions: assign({ conditioning: ({ event }) => event.output.conditioning }) },
          },
        },
        encoded: { always: [{ guard: 'hasPicture', target: 'encodingPicture' }, { target: 'denoising' }] },
        encodingPicture: {
          invoke: {
            id: 'encodePicture',
            src: 'inference.encode_picture',
            input: ({ context }) => ({
              model: pinOf(context),
              width: context.input.width,
              height: context.input.height,
              ...pictureOf(context),
              ...memoryOf(context.input),
              ...classOf(context.input),
            }),
            onDone: { target: 'denoising', actions: assign({ pictureLatents: ({ event }) => event.output.pictureLatents }) },
          },
        },
        denoising: {
          invoke: {
            id: 'denoise',
            src: 'inference.denoise',
            input: ({ context }) => ({
              ...firstPass(requestOf(context, current(context))),
              conditioning: context.conditioning,
              ...(context.pictureLatents && { pictureLatents: context.pictureLatents }),
            }),
            onDone: [
              { guard: 'isToEnlarge', target: 'enlarging', actions: 'keepDenoised' },
              { target: 'decoding', actions: 'keepDenoised' },
            ],
            onError: { guard: 'mayDrawAgain', target: 'encoding', reenter: true, actions: 'drawAgain' },
          },
        },
        enlarging: {
          invoke: {
            id: 'enlarge',
            src: 'inference.enlarge',
            input: ({ context }) => enlargingOf(context),
            onDone: { target: 'drawingOver', actions: assign({ enlarged: ({ event }) => event.output.pictureLatents }) },
            onError: { guard: 'mayDrawAgain', target: 'encoding', actions: 'drawAgain' },
          },
        },
        drawingOver: {
          invoke: {
            id: 'drawOver',
            src: 'inference.denoise',
            input: ({ context }) => passOver(context, hiresPass(requestOf(context, current(context))), context.enlarged ?? null),
            onDone: { target: 'decoding', actions: 'keepDenoised' },
            onError: { guard: 'mayDrawAgain', target: 'encoding', actions: 'drawAgain' },
          },
        },
        decoding: {
          invoke: {
            id: 'decode',
            src: 'inference.decode',
            input: ({ context }) => ({
              model: pinOf(context),
              ...(context.input.hires ? finishedSize(context.input) : { width: context.input.width, height: context.input.height }),
              latents: context.denoised?.latents ?? '',
              ...(context.input.mask && pictureOf(context)),
              ...memoryOf(context.input),
              ...classOf(context.input),
            }),
            onDone: [
              { guard: 'isToDetail', target: 'detailing', actions: ['keepDrawn', assign({ region: 0 })] },
              { target: 'drawn', actions: 'keepDrawn' },
            ],
            onError: { guard: 'mayDrawAgain', target: 'encoding', actions: 'drawAgain' },
          },
        },
        detailing: {
          initial: 'encoding',
          states: {
            encoding: {
              invoke: {
                id: 'encodeRegion',
                src: 'inference.encode_picture',
                input: ({ context }) => regionOfPixels(context),
                onDone: { target: 'denoising', actions: assign({ enlarged: ({ event }) => event.output.pictureLatents }) },
                onError: { guard: 'mayDrawAgain', target: again, actions: 'drawAgain' },
              },
            },
            denoising: {
              invoke: {
                id: 'denoiseRegion',
                src: 'inference.denoise',
                input: ({ context }) => passOver(context, regionOf(context), context.enlarged ?? null),
                onDone: { target: 'decoding', actions: 'keepDenoised' },
                onError: { guard: 'mayDrawAgain', target: again, actions: 'drawAgain' },
              },
            },
            decoding: {
              invoke: {
                id: 'decodeRegion',
                src: 'inference.decode',
                input: ({ context }) => ({ ...regionOfPixels(context), latents: context.denoised?.latents ?? '' }),
                onDone: [
                  {
                    guard: 'hasMoreRegions',
                    target: 'encoding',
                    actions: ['keepDrawn', assign({ region: ({ context }) => (context.region ?? 0) + 1 })],
                  },
                  { target: '#image-generation.drawing.drawn', actions: 'keepDrawn' },
                ],
                onError: { guard: 'mayDrawAgain', target: again, actions: 'drawAgain' },
              },
            },
          },
        },
        drawn: { always: [{ guard: 'isToCheck', target: 'checking' }, { target: 'saving' }] },
        checking: {
          invoke: {
            id: 'check',
            src: 'postprocessing.check',
            input: ({ context }) => checkOf(context),
            onDone: [
              { guard: 'mayRedraw', target: 'denoising', actions: ['forgetDrawn', 'redraw'] },
              { target: 'saving', actions: 'keepJudgement' },
            ],
            onError: [
              { guard: 'mayDrawAgain', target: 'encoding', actions: 'drawAgain' },
              { guard: 'mayPassUnchecked', target: 'saving', actions: 'keepUnchecked' },
            ],
          },
        },
        saving: {
          entry: [
            spawnChild('postprocessing.save', {
              id: ({ context }) => `save.${current(context)}`,
              input: ({ context }) => ({
                pixels: context.drawn?.pixels ?? '',
                width: context.drawn?.width ?? 0,
                height: context.drawn?.height ?? 0,
                workflow: 'image-generation@1',
                request: requestOf(context, current(context)),
                exactness: context.drawn?.exactness ?? context.denoised?.exactness ?? { key: '', facts: {} },
                ...judgedAs(context),
              }),
            }),
            'forgetDrawn',
            assign({ todo: ({ context }) => context.todo.slice(1) }),
          ],
          always: 'next',
        },
        next: {
          always: [{ guard: 'hasMore', target: 'denoising' }, { target: '#image-generation.finishing' }],
        },
      },
    },
    finishing: {
      always: [
        { guard: 'hasMore', target: 'drawing' },
        { guard: 'isComplete', target: 'done' },
      ],
    },
    done: { type: 'final' },
  },
  output: ({ context }) => outputOf(context),
})

export const imageGeneration = defineWorkflow({
  name: 'image-generation',
  description:
    'One picture or several from a text, or from a picture and a text, all of it or what a mask covers: image i with seed + i, each a PNG that carries its own receipt.',
  input: Input,
  output: Output,
  machine,
  exact: true,
  async resolveInput(given, catalogue) {
    const drawing = await catalogue.model(given.model)
    const references = await completeReferences(given, drawing, catalogue)
    const model = sizedLike(drawing, references, given)
    const { whole, own } = wholeForm(given, model)
    checkTold(whole.sizes, model)
    const { adapters, embeddings, ...texts } = await completeBeside(whole, model, catalogue)
    const asked = { ...whole, ...texts }
    const plain = Object.fromEntries(Object.entries(asked).filter(([field]) => !(field in completedFields)))
    // Whole: it has what the client left out, too.
    const first = { ...(plain as typeof own & { sampler: ImageRequest['sampler'] }), ...(await completePicture(asked, model, catalogue)) }
    const hires = await completeHires(asked, first, model, catalogue)
    const input = ResolvedInput.parse({
      seed: catalogue.draw(2 ** 32),
      ...first,
      ...completePrompt(asked, model, catalogue),
      ...hires,
      ...(await completeDetail(asked, first, finishedSize({ ...first, ...hires }), model, catalogue)),
      ...(await completeControl(asked, model, catalogue)),
      ...references,
      ...completeMemory(asked),
      ...completeFast(asked, model, asked.class === 'fast' ? await catalogue.fast({ id: model.id, bodyHash: model.bodyHash }) : []),
      ...(await completePostprocess(asked, finishedSize({ ...first, ...hires }), catalogue)),
      ...(await completeSafety(asked, catalogue)),
      ...(adapters && { adapters }),
      ...(embeddings && { embeddings }),
      model: model.id,
      modelHash: model.bodyHash,
      ...(model.vae && { vae: model.vae }),
    })
    checkRedraws(input.variation?.seed ?? input.seed, input.count, input.safety)
    const limits = await catalogue.limits({ id: model.id, bodyHash: model.bodyHash })
    for (const [at, part] of partsOf(input)) {
      checkLimits(model, part, at)
      checkSize(part, model.scale, limits, at)
    }
    return input
  },
  progress(context, step, fraction) {
    const { input, todo } = context as Context
    const before = input.count - todo.length
    const within = withinImage(input, context as Context, step, fraction)
    return { fraction: Math.min(0.999, (before + within) / input.count), image: Math.min(before + 1, input.count), images: input.count }
  },
  isStrict: ({ pin }) => pin === 'strict',
  asked: askedAgain,
  drawing: (input) => drawingOf(input as ResolvedInput),
  steps: (input) => stepsOf(input as ResolvedInput),
  resources: { lanes: ['gpu', 'host'], note: 'one device; memory by model and size' },
})
