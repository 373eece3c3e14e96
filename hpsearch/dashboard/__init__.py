"""The dashboard: pages and a REST API over the record, read-only unless actions are allowed.

With the network off everything works: pages ask this server for their pictures, and nobody else for anything.

    app             routes, record and guard put together: ``make_app``
    access guard    who may do what; one layer that holds every request to it
    login problem   the way in; what went wrong, in words
    rendering       templates as HTML, in the page's theme
    server          serves it from this process
    record          the record in memory: a ``View`` of a study at one revision, and what was computed of it, once
    workshop        what a process of its own makes: importances, reports
    wanted query    what a request is about: the study of its path, the trials that its query chooses
    paging          pages of trials that keep their place while trials come in
    standing        how far a study is, what a trial is worth; its interval
    rounds workers  how a study went, for pages and API alike: by round, by worker
    diagnosis shipping  what went wrong; what speaks for a trial
    logs            the end of a run's log; nothing outside the study's files
    live            what has changed: server-sent events, one look at the record a second for all
    drawing         pictures as plotly's JSON in the page's colours, and as tables
    api/            the REST API, a file a noun; its `__init__` says how its files hang together
    pages/          the pages, a file a noun, with ``templates/``; ``frame`` is what all have
    static/         app.css, app.js; follow.js keeps a page as the record is, live.js holds one stream for all tabs,
                    ask.js asks where there is none; plotly.js (its cartesian bundle, of the major version that
                    the wheel has) and idiomorph (puts into a page what has changed in it) are others'

A page is HTML from the server, with what it says in words and tables; ``app.js`` draws a picture when it comes into
sight. The URL holds the state of a page: filters are GET forms, and pictures get the same query.
"""
