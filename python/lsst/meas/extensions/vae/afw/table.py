# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Catalogues of sources with a schema, parents and footprints, with the names
of ``afw.table``.

Columns are numpy arrays that grow geometrically; a record is a row number. A
subset of a catalogue shares its rows, so setting a value shows in both.
"""

__all__ = [
    "BaseCatalog",
    "BaseRecord",
    "BaseTable",
    "IdFactory",
    "SourceCatalog",
    "SourceRecord",
    "SourceTable",
]

import numpy as np

from ..errors import CatalogError
from .geometry import Angle
from .schema import Field, Key, Schema, SchemaMapper


class IdFactory:
    """Hands out new ids.

    Parameters
    ----------
    upper : `int`
        What every id starts from.
    reserved : `int`, optional
        How many bits below ``upper`` ids have.
    """

    def __init__(self, upper=0, reserved=63):
        self._upper, self._limit, self._last = upper, 1 << reserved, 0

    @classmethod
    def makeSimple(cls):
        """Ids 1, 2, 3, ..."""
        return cls()

    @classmethod
    def makeSource(cls, expId, reserved):
        """Ids ``expId << reserved`` + 1, 2, 3, ..."""
        if expId < 0 or expId.bit_length() + reserved > 63:
            raise CatalogError(f"The id {expId} and {reserved} reserved bits do not fit into 63 bits.")
        return cls(expId << reserved, reserved)

    def __call__(self):
        if self._last + 1 >= self._limit:
            raise CatalogError(f"No id is left after {self._upper + self._last}.")
        self._last += 1
        return self._upper + self._last

    def notify(self, id):
        """Tell of an id in use: the next one is higher."""
        last = int(id) - self._upper
        if not 0 <= last < self._limit:
            raise CatalogError(
                f"The id {id} is not between {self._upper} and {self._upper + self._limit - 1}."
            )
        self._last = max(self._last, last)

    def clone(self):
        """A copy that counts by itself."""
        result = IdFactory(self._upper)
        result._limit, result._last = self._limit, self._last
        return result


class BaseTable:
    """The rows that catalogues share: a schema and a column for each field."""

    _minimal = ()

    def __init__(self, schema, idFactory=None):
        self._check(schema)
        self.schema = Schema(schema)
        self.metadata = {}
        self._idFactory = idFactory
        self._n = 0
        self._capacity = 0
        self._columns = {item.key: item.field.makeColumn(0) for item in self.schema}
        self._objects = {}  # footprints by row

    @classmethod
    def makeMinimalSchema(cls):
        """A new schema with the fields that every table of this kind has."""
        return Schema(cls._minimal)

    @classmethod
    def _check(cls, schema):
        missing = [field.name for field in cls._minimal if field.name not in schema]
        if missing:
            raise CatalogError(f"A schema for {cls.__name__} needs the fields {', '.join(missing)} too.")

    @classmethod
    def make(cls, schema, idFactory=None):
        """A table without rows; its new records have id 0 without a factory."""
        return cls(schema, idFactory)

    def getSchema(self):
        """The `Schema`."""
        return self.schema

    def getIdFactory(self):
        """The `IdFactory`."""
        return self._idFactory

    def setIdFactory(self, idFactory):
        """Take another `IdFactory`."""
        self._idFactory = idFactory

    def getMetadata(self):
        """The metadata, a `dict`."""
        return self.metadata

    def clone(self):
        """An empty table of the same schema."""
        result = type(self)(self.schema, self._idFactory)
        result.metadata = dict(self.metadata)
        return result

    def reserve(self, n):
        """Make room for ``n`` rows in all."""
        if n > self._capacity:
            self._capacity = max(n, 2 * self._capacity, 8)
            for item in self.schema:
                old = self._columns[item.key]
                new = item.field.makeColumn(self._capacity)
                new[: self._n] = old[: self._n]
                self._columns[item.key] = new

    def _addRows(self, n, withIds=True):
        """Add rows and return the number of the first."""
        first = self._n
        self.reserve(first + n)
        self._n += n
        if withIds and self._idFactory is not None and "id" in self._columns:
            self._columns["id"][first : self._n] = [self._idFactory() for _ in range(n)]
        return first

    def column(self, name, rows):
        """The values of a field in some rows."""
        self.schema.find(name)
        return self._columns[name][rows]


class BaseRecord:
    """One row of a table."""

    __slots__ = ("_row", "_table")

    def __init__(self, table, row):
        self._table, self._row = table, row

    def get(self, key):
        """The value of a field, by name or key."""
        if not isinstance(key, str):
            return key.get(self)
        try:
            value = self._table._columns[key][self._row]
        except KeyError:
            value = self._table.column(key, self._row)  # says which fields there are
        field = self._table.schema._fields[key]
        if field.type == "Angle":
            return Angle(value)
        return value.copy() if field.isArray else value.item()

    def set(self, key, value):
        """Set the value of a field, by name or key (`CatalogError` if it does not fit)."""
        if not isinstance(key, str):
            key.set(self, value)
            return
        table = self._table
        field = table.schema._fields.get(key) or table.schema.find(key).field
        table._columns[key][self._row] = field.check(value)

    __getitem__ = get
    __setitem__ = set

    def getSchema(self):
        """The `Schema`."""
        return self._table.schema

    schema = property(getSchema)

    @property
    def table(self):
        """The table that has the row."""
        return self._table

    def getTable(self):
        """The table that has the row."""
        return self._table

    def getId(self):
        """The id."""
        return self.get("id")

    def setId(self, id):
        """Set the id."""
        self.set("id", id)

    def extract(self, *patterns):
        """The values of the fields whose names match shell-like patterns, a `dict`."""
        return {name: self.get(name) for name in self.schema.extract(*patterns)}

    def assign(self, other, mapper=None):
        """Copy the fields of another record: those a `SchemaMapper` maps, or all."""
        if mapper is None:
            if self.schema != other.schema:
                raise CatalogError("Records of different schemas need a SchemaMapper to be assigned.")
            pairs = [(name, name) for name in self.schema.getOrderedNames()]
        else:
            pairs = mapper.pairs()
        for source, target in pairs:
            self._table._columns[target][self._row] = other._table._columns[source][other._row]
        self._assignObject(other)

    def _assignObject(self, other):
        if other._row in other._table._objects:
            self._table._objects[self._row] = other._table._objects[other._row]

    def __eq__(self, other):
        if not isinstance(other, BaseRecord):
            return NotImplemented
        return self._table is other._table and self._row == other._row

    def __hash__(self):
        return hash((id(self._table), self._row))

    def __repr__(self):
        return f"<{type(self).__name__} {self.extract('*')}>"


class BaseCatalog:
    """A list of records of one table, column by column where asked.

    Parameters
    ----------
    table : `Schema` or table
        The schema of a new table, or the table.
    """

    Table = BaseTable
    Record = BaseRecord

    def __init__(self, table=None):
        if table is None:
            table = self.Table.makeMinimalSchema()
        if isinstance(table, Schema):
            table = self.Table(table, IdFactory.makeSimple())
        self.table = table
        self._rows = np.zeros(8, dtype=np.int64)
        self._n = 0

    @classmethod
    def _of(cls, table, rows):
        result = cls.__new__(cls)
        result.table, result._rows, result._n = table, np.asarray(rows, dtype=np.int64), len(rows)
        return result

    @property
    def schema(self):
        """The `Schema`."""
        return self.table.schema

    def getSchema(self):
        """The `Schema`."""
        return self.table.schema

    def getTable(self):
        """The table that has the rows."""
        return self.table

    def getIdFactory(self):
        """The `IdFactory` of the table."""
        return self.table.getIdFactory()

    @property
    def metadata(self):
        """Simple values that travel with the catalogue, a `dict`."""
        return self.table.metadata

    def getMetadata(self):
        """The metadata, a `dict`."""
        return self.table.metadata

    def setMetadata(self, metadata):
        """Replace the metadata."""
        self.table.metadata = metadata

    # Rows

    def __len__(self):
        return self._n

    def _extendRows(self, rows):
        need = self._n + len(rows)
        if need > len(self._rows):
            grown = np.zeros(max(need, 2 * len(self._rows), 8), dtype=np.int64)
            grown[: self._n] = self._rows[: self._n]
            self._rows = grown
        self._rows[self._n : need] = rows
        self._n = need

    def _index(self):
        """The rows: a slice where they are one after the other, else an array."""
        rows = self._rows[: self._n]
        if self._n == 0:
            return slice(0, 0)
        if rows[-1] - rows[0] == self._n - 1 and (self._n < 3 or np.all(np.diff(rows) == 1)):
            return slice(int(rows[0]), int(rows[-1]) + 1)
        return rows

    def isContiguous(self):
        """Whether columns are views: the rows follow one another in the table."""
        return isinstance(self._index(), slice)

    def __iter__(self):
        return (self.Record(self.table, row) for row in self._rows[: self._n].tolist())

    def addNew(self):
        """Add a record with the fields' defaults and the next id."""
        row = self.table._addRows(1)
        self._extendRows([row])
        return self.Record(self.table, row)

    def resize(self, n):
        """Add records at the end, or drop them, until there are ``n``."""
        if n < self._n:
            self._n = n
        elif n > self._n:
            first = self.table._addRows(n - self._n)
            self._extendRows(range(first, first + n - self._n))

    def reserve(self, n):
        """Make room for ``n`` records in all."""
        self.table.reserve(self.table._n + n - self._n)

    def append(self, record):
        """Add a record: the same one, or a copy if it is another table's."""
        if record._table is self.table:
            self._extendRows([record._row])
            return
        row = self.table._addRows(1, withIds=False)
        self.Record(self.table, row).assign(record)
        self._extendRows([row])

    def extend(self, records, deep=False, mapper=None):
        """Add records.

        Parameters
        ----------
        records : catalogue or sequence of records
            What to add.
        deep : `bool` or `SchemaMapper`
            Copy the records even if they are of the same table.
        mapper : `SchemaMapper`, optional
            Copies the mapped fields (afw also takes it in place of ``deep``).
        """
        if isinstance(deep, SchemaMapper):
            deep, mapper = False, deep
        if not isinstance(records, BaseCatalog):
            for record in records:
                if mapper is None and not deep:
                    self.append(record)
                else:
                    self.extend(type(self)._of(record._table, [record._row]), deep, mapper)
            return
        if mapper is None and not deep and records.table is self.table:
            self._extendRows(records._rows[: records._n])
            return
        if mapper is not None:
            pairs = mapper.pairs()
        elif records.schema == self.schema:
            pairs = [(name, name) for name in self.schema.getOrderedNames()]
        else:
            raise CatalogError("Records of another schema need a SchemaMapper to be added.")
        first = self.table._addRows(len(records), withIds=False)
        for source, target in pairs:
            self.table._columns[target][first : first + len(records)] = records[source]
        for i, row in enumerate(records._rows[: records._n].tolist()):
            if row in records.table._objects:
                self.table._objects[first + i] = records.table._objects[row]
        self._extendRows(range(first, first + len(records)))

    def copy(self, deep=False):
        """A catalogue of the same records, or of copies of them."""
        if not deep:
            return self._of(self.table, self._rows[: self._n].copy())
        result = type(self)(self.table.clone())
        result.extend(self, deep=True)
        return result

    def subset(self, rows, stop=None, step=None):
        """The records of a slice, a boolean array or an array of numbers; they are shared."""
        if stop is not None:
            rows = slice(rows, stop, step)
        if not isinstance(rows, slice):
            rows = np.asarray(rows)
            if rows.dtype == bool and len(rows) != self._n:
                raise CatalogError(f"A mask of {len(rows)} values does not go with {self._n} records.")
        return self._of(self.table, self._rows[: self._n][rows].copy())

    def __getitem__(self, key):
        if isinstance(key, str):
            rows = self._index()
            values = self.table.column(key, rows)
            if not isinstance(rows, slice):
                values.flags.writeable = False  # a copy: setting it would be lost
            return values
        if isinstance(key, (int, np.integer)):
            if not -self._n <= key < self._n:
                raise IndexError(f"There is no record {key}; there are {self._n}.")
            return self.Record(self.table, int(self._rows[: self._n][key]))
        if isinstance(key, (slice, np.ndarray, list)):
            return self.subset(key)
        raise CatalogError(f"A catalogue is indexed by a number, name, slice or array, not by {key!r}.")

    def __setitem__(self, key, values):
        if isinstance(key, str):
            field = self.schema.find(key).field
            self.table._columns[key][self._index()] = field.checkAll(values)
        else:
            self[key].assign(values)

    def __delitem__(self, key):
        rows = np.delete(self._rows[: self._n], key)
        self._rows, self._n = rows, len(rows)

    def clear(self):
        """Drop every record."""
        self._n = 0

    def get(self, key):
        """The column of a field, by name or key."""
        return self[key] if isinstance(key, str) else key.get(self)

    set = __setitem__

    @property
    def columns(self):
        """The columns: ``columns[name]``."""
        return self

    def getColumnView(self):
        """The columns: ``view[name]``."""
        return self

    # Order

    def sort(self, key="id"):
        """Sort the records by a field; equal ones keep their order."""
        self._rows = self._rows[: self._n][np.argsort(self[key], kind="stable")]

    def isSorted(self, key="id"):
        """Whether a field never decreases."""
        values = self[key]
        return bool(np.all(values[1:] >= values[:-1]))

    def find(self, value, key="id"):
        """The first record whose field has a value, or `None`."""
        found = np.flatnonzero(self[key] == value)
        return self[int(found[0])] if len(found) else None

    def asAstropy(self, cls=None, copy=False, unviewable="copy"):
        """The catalogue as an `astropy.table.Table`.

        Parameters
        ----------
        cls : `type`, optional
            The subclass of `~astropy.table.Table` to make.
        copy : `bool`
            Copy the columns; otherwise they are views where they can be.
        unviewable : `str`
            Accepted as in afw; every column here can be viewed.
        """
        from astropy.table import Column, Table

        columns = [
            Column(self[i.key], name=i.key, unit=i.field.units or None, description=i.field.doc, copy=copy)
            for i in self.schema
        ]
        return (cls or Table)(columns, meta=dict(self.metadata), copy=copy)

    def __repr__(self):
        return f"<{type(self).__name__} of {self._n} records with {len(self.schema)} fields>"


class SourceTable(BaseTable):
    """A table of sources (id, coord_ra, coord_dec, parent); each may have a footprint."""

    _minimal = (
        Field("id", "L", "unique ID"),
        Field("coord_ra", "Angle", "position in ra", "rad"),
        Field("coord_dec", "Angle", "position in dec", "rad"),
        Field("parent", "L", "unique ID of parent source"),
    )

    @classmethod
    def getIdKey(cls):
        """The key of the id."""
        return Key("id")

    @classmethod
    def getParentKey(cls):
        """The key of the parent's id."""
        return Key("parent")


class SourceRecord(BaseRecord):
    """One source."""

    __slots__ = ()

    def getParent(self):
        """The id of the parent; 0 where there is none."""
        return self.get("parent")

    def setParent(self, id):
        """Set the id of the parent."""
        self.set("parent", id)

    def getRa(self):
        """The right ascension, `Angle`."""
        return self.get("coord_ra")

    def getDec(self):
        """The declination, `Angle`."""
        return self.get("coord_dec")

    def getFootprint(self):
        """The footprint, or `None`."""
        return self._table._objects.get(self._row)

    def setFootprint(self, footprint):
        """Attach a footprint; `None` takes it away."""
        if footprint is None:
            self._table._objects.pop(self._row, None)
        else:
            self._table._objects[self._row] = footprint


class SourceCatalog(BaseCatalog):
    """A catalogue of sources; see `BaseCatalog`."""

    Table = SourceTable
    Record = SourceRecord

    def writeFits(self, path, heavy=True):
        """Write one FITS file; see `persistence.writeSourceCatalog`."""
        from .persistence import writeSourceCatalog

        writeSourceCatalog(self, path, heavy)

    @staticmethod
    def readFits(path):
        """Read such a file; see `persistence.readSourceCatalog`."""
        from .persistence import readSourceCatalog

        return readSourceCatalog(path)

    def getChildren(self, parent, *args):
        """The records whose parent has an id.

        Parameters
        ----------
        parent : `int` or iterable of `int`
            One id, or several.
        *args : catalogues
            Others, record by record like this one, to take the same part of.

        Returns
        -------
        children : `SourceCatalog`, `tuple` or generator of them
            For several ids, one at a time.
        """
        if not isinstance(parent, (int, np.integer)):
            return (self.getChildren(one, *args) for one in parent)
        rows = np.flatnonzero(self["parent"] == parent)
        return (self[rows], *(other[rows] for other in args)) if args else self[rows]
