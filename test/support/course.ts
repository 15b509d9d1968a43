/** A machine under way, without an engine: what it asks for, and what comes of the answers. */
import { doneEvent, errorEvent, type Document, type PureMachine, type Transition } from '../../src/engine/transition.ts'

/** A session whose steps are answered one by one. */
export class Course {
  readonly #machine: PureMachine
  #at: Transition
  #version = 1

  constructor(machine: PureMachine, input: object, from?: Document) {
    this.#machine = machine
    this.#at = from ? { ...machine.start(input, 1), ...machine.load(from) } : machine.start(input, 1)
  }

  get document(): Document {
    return this.#at.document
  }

  /** The step of that name which is open now. */
  open(step: string): { invoke: string; suffix: string; input: Record<string, unknown> } {
    const found = Object.entries(this.document.effects).find(([, effect]) => 'step' in effect && effect.step === step)
    if (!found) throw new Error(`${step} is not open; open are ${JSON.stringify(Object.values(this.document.effects))}`)
    const [name, effect] = found
    return {
      invoke: name.slice(name.indexOf('/') + 1),
      suffix: effect.suffix,
      input: (effect as unknown as { input: Record<string, unknown> }).input,
    }
  }

  ends(step: string, output: unknown): this {
    const { invoke, suffix } = this.open(step)
    this.#at = this.#machine.next(this.#at, doneEvent(invoke, output), suffix, ++this.#version)
    return this
  }

  fails(step: string, code: string): this {
    const { invoke, suffix } = this.open(step)
    this.#at = this.#machine.next(this.#at, errorEvent(invoke, { code }), suffix, ++this.#version)
    return this
  }
}
