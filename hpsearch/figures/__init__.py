"""Pictures of a study, one a file: ``data`` computes from the record, ``figure`` draws what it found with plotly.

Nothing here holds more than 2,000 marks; where there is more to show, ``data`` keeps the best and a sample, and its
``note`` says so. Diverged and failed runs are shown, not dropped. Colours are Okabe and Ito's, and no meaning rests on
colour alone.

    from hpsearch.figures import history, subject

    history.figure(history.data(subject.of(hp.load("digits")))).show()
"""
