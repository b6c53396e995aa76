"""Methods that change what a language model says, behind one interface: :class:`palimpsest.editors.editor.Editor`."""
