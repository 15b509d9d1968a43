/** Faces restored: the steps that this asks for, and what is refused where its networks are not there. */
import { describe, expect, it } from 'vitest'
import { PureMachine } from '../../src/engine/transition.ts'
import { modelError } from '../../src/models/errors.ts'
import { imageFaces } from '../../src/workflows/built-in/image-faces.ts'
import { Course } from '../support/course.ts'

const hash = (digit: string): string => digit.repeat(64)
const picture = { sha256: hash('b'), width: 40, height: 30 }
const exactness = { key: '01234567', facts: {} }
const resolved = (asked: object, there: readonly string[]) =>
  imageFaces.resolveInput(imageFaces.input.parse({ picture: picture.sha256, ...asked }), {
    picture: () => Promise.resolve({ ...picture, hasAlpha: false }),
    ofKind: (kind: string, id: string) =>
      there.includes(id) ? Promise.resolve({ id, bodyHash: null }) : Promise.reject(modelError('unknown', `there is no ${kind} "${id}"`)),
  } as never)

describe('image-faces', () => {
  const machine = new PureMachine(imageFaces.machine)
  const input = { picture, detector: { id: 'yunet', bodyHash: null }, restorer: { id: 'g', bodyHash: null }, strength: 0.5 }
  const made = { pixels: hash('d'), width: 40, height: 30, hasAlpha: true, faces: 2, exactness }

  it('pins both networks, restores, and keeps a file that says how', () => {
    const course = new Course(machine, input)
    expect(course.open('model.hash').input).toEqual({ model: { id: 'yunet', bodyHash: null, kind: 'face-detector' } })
    course.ends('model.hash', { model: { id: 'yunet', bodyHash: hash('1') } })
    expect(course.open('model.hash').input).toEqual({ model: { id: 'g', bodyHash: null, kind: 'face-restorer' } })
    course.ends('model.hash', { model: { id: 'g', bodyHash: hash('2') } })
    const request = { picture, detector: { id: 'yunet', bodyHash: hash('1') }, restorer: { id: 'g', bodyHash: hash('2') }, strength: 0.5 }
    expect(course.open('postprocessing.faces').input).toEqual(request)
    course.ends('postprocessing.faces', made)
    expect(course.open('postprocessing.keep').input).toMatchObject({ workflow: 'image-faces@1', request, hasAlpha: true, exactness })
    course.fails('postprocessing.keep', 'artifact.missing').ends('postprocessing.faces', made)
    const image = { sha256: hash('e'), mediaType: 'image/png', width: 40, height: 30, bytes: 9 }
    course.ends('postprocessing.keep', image)
    expect((course.document as unknown as { output: unknown }).output).toEqual({ images: [image], faces: 2 })
  })

  it('is refused by the name of what is not there, with where it belongs', async () => {
    expect(await resolved({ restorer: 'g' }, ['yunet', 'g'])).toMatchObject({
      restorer: { id: 'g' },
      detector: { id: 'yunet' },
      strength: 1,
    })
    await expect(resolved({}, ['GFPGANv1.4'])).rejects.toMatchObject({
      code: 'postprocessing.weights_missing',
      field: 'input.detector',
      message: 'faces need a detector, and there is no face-detector "yunet"',
      remedy: expect.stringContaining('face_detectors') as string,
    })
    await expect(resolved({}, ['yunet'])).rejects.toMatchObject({
      code: 'postprocessing.weights_missing',
      field: 'input.restorer',
      message: expect.stringContaining('"GFPGANv1.4"') as string,
    })
  })
})
