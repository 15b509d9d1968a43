/** What the command line says of a ControlNet, as a request has it. */
import { readFile } from 'node:fs/promises'
import type { DarkroomClient } from '../client/index.ts'
import { onDisk } from '../disk.ts'
import { OpenPose, type People, type preprocessors } from '../domains/preprocessors.ts'
import type { Control } from '../domains/values.ts'
import { fieldProblems, invalidFields } from '../errors.ts'
import { preprocessorTasks } from '../models/verdict.ts'
import { uploaded } from './pictures.ts'

export interface ControlOptions {
  /** A file, or the id of a picture; with the preprocessor pose a file of joints. */
  control?: string | undefined
  controlModel?: string | undefined
  preprocessor?: (typeof preprocessors)[number] | undefined
  /** Of a preprocessor that a network sees: its name. */
  preprocessorModel?: string | undefined
  controlWeight?: number | undefined
  controlStart?: number | undefined
  controlEnd?: number | undefined
  controlMode?: Control['mode'] | undefined
  controlTask?: Control['task'] | undefined
}

/** The field `control` of a request. @throws Problem; `api.invalid`; as `onDisk` */
export async function controlOf(
  client: DarkroomClient,
  {
    control: file,
    controlModel: model,
    preprocessor,
    preprocessorModel: network,
    controlWeight: weight,
    controlStart: start,
    controlEnd: end,
    ...more
  }: ControlOptions,
) {
  const { controlMode: mode, controlTask: task } = more
  const acts = Object.fromEntries(Object.entries({ weight, start, end, mode, task }).filter(([, value]) => value !== undefined))
  if (file === undefined) {
    const said = Object.keys({
      ...(model && { model }),
      ...(preprocessor && { preprocessor }),
      ...(network && { preprocessorModel: network }),
      ...acts,
    })
    if (said.length > 0)
      throw invalidFields(said.map((field) => ({ field, message: 'is said of a ControlNet, and there is none: add --control' })))
    return {}
  }
  if (model === undefined) throw invalidFields([{ field: 'model', message: 'is missing: say which ControlNet with --control-model' }])
  if (network !== undefined && !preprocessorTasks.some((task) => task === preprocessor))
    throw invalidFields([
      {
        field: 'preprocessorModel',
        message: `is said of a network, and none sees here: add --preprocessor ${preprocessorTasks.join(' or ')}`,
      },
    ])
  if (preprocessor === 'pose') return { control: [{ model, ...acts, preprocessor: { name: preprocessor, people: await joints(file) } }] }
  const picture = await uploaded(client, file)
  return {
    control: [
      { model, picture, ...acts, ...(preprocessor && { preprocessor: { name: preprocessor, ...(network && { model: network }) } }) },
    ],
  }
}

async function joints(file: string): Promise<People> {
  const text = await onDisk(file, readFile(file, 'utf8'))
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (error) {
    throw invalidFields([{ field: 'control', message: `${file} is no JSON of joints: ${(error as Error).message}` }])
  }
  const parsed = OpenPose.safeParse(json)
  if (parsed.success) return parsed.data
  throw invalidFields(
    fieldProblems(parsed.error.issues, 'control').map(({ field, message }) => ({
      field: 'control',
      message: `${file}: ${field} ${message}`,
    })),
  )
}
