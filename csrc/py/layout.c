// SPDX-License-Identifier: Apache-2.0
//
// Sizes of objects.
//
// Py_TYPE(object)->tp_basicsize and the number of items say most of it. Strings, integers, types and what stands before
// an object have rules of their own. Sizes need not be exact for small objects: the census's user knows the blocks of
// pymalloc.

#include "py/layout.h"

#if PY_VERSION_HEX >= 0x030B0000
size_t ff_layout_keys_size(const void *address) {
  const struct ff_keys *keys = address;
  if (keys->log2_size > 40 || keys->log2_index_bytes > 43) return 0;
  size_t slots = (size_t)1 << keys->log2_size;
  return sizeof *keys + ((size_t)1 << keys->log2_index_bytes) + (slots * 2 / 3) * (keys->kind == 0 ? 24 : 16);
}
#else
size_t ff_layout_keys_size(const void *address) {
  const struct ff_keys *keys = address;
  size_t slots = (size_t)keys->size;
  if (slots > (size_t)1 << 40) return 0;
  size_t index = slots <= 0xff ? 1 : slots <= 0xffff ? 2 : slots <= 0xffffffff ? 4 : 8;
  return sizeof *keys + slots * index + (slots * 2 / 3) * 24;
}
#endif

static size_t items_of(PyObject *object) {
#if PY_VERSION_HEX >= 0x030C0000
  if (PyLong_Check(object)) {
    size_t digits = ((PyLongObject *)object)->long_value.lv_tag >> 3;
    return digits > 0 ? digits : 1;
  }
#endif
  Py_ssize_t items = ((PyVarObject *)object)->ob_size;
  if (items < 0) items = -items;
  return items < (Py_ssize_t)1 << 40 ? (size_t)items : 0;
}

size_t ff_layout_size(PyObject *object) {
  PyTypeObject *type = Py_TYPE(object);
  if (PyUnicode_Check(object)) {
    PyASCIIObject *text = (PyASCIIObject *)object;
    size_t length = (size_t)text->length + 1;
    if (!text->state.compact) return (size_t)type->tp_basicsize;
    if (text->state.ascii) return sizeof(PyASCIIObject) + length;
    return sizeof(PyCompactUnicodeObject) + length * text->state.kind;
  }
  if (PyType_Check(object) && !PyType_HasFeature((PyTypeObject *)object, Py_TPFLAGS_HEAPTYPE))
    return sizeof(PyTypeObject);
  size_t size = (size_t)type->tp_basicsize;
  return type->tp_itemsize > 0 ? size + items_of(object) * (size_t)type->tp_itemsize : size;
}

size_t ff_layout_before(PyObject *object) {
  size_t bytes = PyObject_IS_GC(object) ? FF_LAYOUT_HEADER : 0;
#if PY_VERSION_HEX >= 0x030C0000
  if (PyType_HasFeature(Py_TYPE(object), Py_TPFLAGS_PREHEADER)) bytes += 2 * sizeof(void *);
#elif PY_VERSION_HEX >= 0x030B0000
  if (PyType_HasFeature(Py_TYPE(object), Py_TPFLAGS_MANAGED_DICT)) bytes += 2 * sizeof(void *);
#endif
  return bytes;
}
