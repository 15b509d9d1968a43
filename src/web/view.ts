/**
 * What the page shows, kept as its components say: components, keys, refs and hooks are those of Preact, whose types
 * they have, and a component runs again when a signal is another that it has read. What is written is text or an
 * attribute; nothing makes markup of a string.
 */
import type { ComponentChild, ComponentChildren, Key, Ref, RefObject } from 'preact'
import { forget, later, onceSettled, readAs, runWaiting, signal, type Reader, type Signal } from './signals.ts'

type Props = Record<string, unknown>
export type Component = (props: Props) => ComponentChildren
interface Wanted {
  type: string | Component
  props: Props
  key?: Key
}

/** One thing of the page: a text, an element, or a component with what it has said last. `undefined`: nothing. */
interface Shown {
  wanted: Wanted | string | undefined
  /** Of a text or an element. */
  dom?: Text | Element
  kids: readonly Shown[]
  /** Of a component. */
  reader?: Reader
  hooks?: Hook[]
  again?: () => void
}
interface Hook {
  of?: readonly unknown[] | undefined
  end?: unknown
}
/** Where something is shown: the next element around it, and how deep that is. */
interface Place {
  host: Element
  around: { kids: readonly Shown[] }
  depth: number
}

/** What the bundler makes of JSX. A button sends no form unless it says that it does. */
export function h(type: string | Component, given: Props | null, ...children: ComponentChild[]): Wanted {
  const { key, ...props } = given ?? {}
  if (children.length > 0) props['children'] = children.length > 1 ? children : children[0]
  if (type === 'button') props['type'] ??= 'button'
  return { type, props, key: key as Key }
}

export const Fragment = ({ children }: Props): ComponentChildren => children as ComponentChildren

export function render(wanted: ComponentChild, host: Element): void {
  const around = { kids: [] as readonly Shown[] }
  around.kids = showAll([wanted], [], { host, around, depth: 0 })
  put(host, around.kids)
  runWaiting()
}

/** Elements and texts of it, in their order. */
const nodesOf = ({ dom, kids }: Shown): readonly Element[] => (dom ? [dom as Element] : kids.flatMap(nodesOf))

/** Brings all into their order. What is moved in the document loses the focus, unless it is given back. */
function put(host: Element, kids: readonly Shown[]): void {
  const focus = document.activeElement as HTMLElement | null
  let next = host.firstChild
  for (const node of kids.flatMap(nodesOf)) {
    if (node === next) next = next.nextSibling
    else host.insertBefore(node, next)
  }
  if (focus !== document.activeElement) focus?.focus()
}

/** What is wanted in place of what is there: the same thing goes on, where it has the same key and is of one type. */
function showAll(wanted: readonly ComponentChild[], before: readonly Shown[], place: Place): Shown[] {
  const keyOf = (each: Shown['wanted'], i: number): unknown => (each as Partial<Wanted> | undefined)?.key ?? i
  const others = before.map((each, i) => ({ each, key: keyOf(each.wanted, i) }))
  const kids = wanted.map((child, i) => {
    const now = wantedOf(child)
    const at = others.findIndex(({ each, key }) => key === keyOf(now, i) && typeOf(each.wanted) === typeOf(now))
    const known = at < 0 ? undefined : others.splice(at, 1)[0]?.each
    return show(now, known ?? { wanted: undefined, kids: [] }, place)
  })
  for (const { each } of others) {
    for (const node of nodesOf(each)) node.remove()
    end(each)
  }
  return kids
}

/** Nothing keeps its place among the others too; a list is one thing among them. */
function wantedOf(child: ComponentChild | ComponentChild[]): Shown['wanted'] {
  if (child === undefined || child === null || typeof child === 'boolean') return undefined
  if (Array.isArray(child)) return h(Fragment, { children: child })
  return typeof child === 'object' ? (child as unknown as Wanted) : String(child)
}

const typeOf = (wanted: Shown['wanted']): unknown => (typeof wanted === 'object' ? wanted.type : typeof wanted)

function show(wanted: Shown['wanted'], shown: Shown, place: Place): Shown {
  const before = shown.wanted
  shown.wanted = wanted
  if (typeof wanted === 'string') {
    shown.dom ??= document.createTextNode(wanted)
    // Written anew it would lose what somebody has selected of it.
    if (wanted !== before) (shown.dom as Text).data = wanted
  } else if (typeof wanted === 'object') {
    const propsBefore = (before as Wanted | undefined)?.props
    if (typeof wanted.type === 'string') showElement(wanted.type, wanted.props, propsBefore ?? {}, shown, place)
    else showComponent(wanted.props, propsBefore, shown, place)
  }
  return shown
}

function showElement(type: string, props: Props, before: Props, shown: Shown, { host, depth }: Place): void {
  const space = type === 'svg' ? 'http://www.w3.org/2000/svg' : host.namespaceURI
  const dom = ((shown.dom as Element | undefined) ??= document.createElementNS(space, type))
  const { children, ref } = props
  for (const name of Object.keys({ ...before, ...props }))
    if (props[name] !== before[name] && !ofView.has(name)) say(dom as HTMLElement, name, props[name])
  shown.kids = showAll(Array.isArray(children) ? children : [children], shown.kids, { host: dom, around: shown, depth: depth + 1 })
  put(dom, shown.kids)
  // What somebody has written or chosen meanwhile is not what was said last; a list has its choices by now.
  for (const name of states) {
    const value = (props[name] ?? '') as string
    if (name in props && String(dom[name as 'id']) !== String(value)) dom[name as 'id'] = value
  }
  if (ref !== before['ref'])
    onceSettled(() => {
      refer(before['ref'] as Ref<unknown>, null, dom)
      refer(ref as Ref<unknown>, dom)
    })
}

const states = ['value', 'checked']
const ofView = new Set([...states, 'children', 'ref'])

function refer(ref: Ref<unknown> | undefined, dom: Element | null, held = dom): void {
  if (typeof ref === 'function') ref(dom)
  else if (ref && (dom || ref.current === held)) ref.current = dom
}

/** An attribute or what else an element is told. */
function say(dom: HTMLElement, name: string, value: unknown): void {
  if (name === 'style') for (const [property, each] of Object.entries(value as Props)) dom.style.setProperty(property, String(each))
  // What a listener of this kind answers would count: false takes back what the browser does.
  else if (name.startsWith('on'))
    dom[name.toLowerCase() as 'onclick'] = value ? (event) => void (value as (event: Event) => unknown)(event) : null
  else if (name.startsWith('default') || (typeof value === 'boolean' && name in dom)) dom[name as 'id'] = value as string
  else if (value === undefined || value === null) dom.removeAttribute(name)
  else dom.setAttribute(name, value as string)
}

/** The component that runs, its hook that comes next, and what it wants done when it is shown. */
let running: Shown
let at = 0
let acts: (() => void)[] = []

function showComponent(props: Props, before: Props | undefined, shown: Shown, place: Place): void {
  // It would say the same again.
  if (before && shown.reader?.sources.size && isSame(props, before)) return
  const reader = (shown.reader ??= { sources: new Map(), stale: () => later(reader, () => shown.again?.(), place.depth) })
  const run = (): void => {
    ;[running, at, acts] = [shown, 0, []]
    const { type, props: now } = shown.wanted as Wanted
    const said = readAs(reader, () => (type as Component)(now))
    const own = acts
    shown.kids = showAll(Array.isArray(said) ? said : [said], shown.kids, { ...place, depth: place.depth + 1 })
    own.forEach(onceSettled)
  }
  shown.again = () => {
    run()
    put(place.host, place.around.kids)
  }
  run()
}

const isSame = (a: Props, b: Props): boolean => Object.keys({ ...a, ...b }).every((name) => a[name] === b[name])

/** What is shown no longer. */
function end({ wanted, reader, hooks = [], kids, dom }: Shown): void {
  if (reader) forget(reader)
  hooks.forEach(endHook)
  if (dom && typeof wanted === 'object') refer(wanted.props['ref'] as Ref<unknown>, null, dom as Element)
  kids.forEach(end)
}

/** Some acts answer what they were answered, as a promise of having scrolled. */
function endHook({ end: act }: Hook): void {
  if (typeof act === 'function') act()
}

function hooked<T>(make: () => T): T {
  const hooks = (running.hooks ??= []) as T[]
  return (hooks[at++] ??= make())
}

export const useRef = <T>(current: T | null): RefObject<T> => hooked(() => ({ current }) as RefObject<T>)
export const useSignal = <T>(value: T): Signal<T> => hooked(() => signal(value))
let ids = 0
export const useId = (): string => hooked(() => `id-${++ids}`)

/** Does something once it is shown, and again when something of `of` is another; `act` answers what ends it. */
export function useEffect(act: () => (() => void) | void, of?: readonly unknown[]): void {
  const hook = hooked<Hook>(() => ({}))
  if (of && hook.of && of.every((each, i) => each === hook.of?.[i])) return
  hook.of = of
  acts.push(() => {
    endHook(hook)
    hook.end = act()
  })
}
