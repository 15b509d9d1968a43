/** What the bundler makes of JSX: calls of `h`. */
export { Fragment, h } from './view.ts'
