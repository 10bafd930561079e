"""What a person or a machine sees while cells run: live bars on a terminal, plain lines elsewhere, JSON lines on request.

    with progress.show(tasks, workers=2, mode="auto") as display:      # mode: auto | live | plain | json | quiet
        engines.run(tasks, function, on_event=display.event, on_result=display.result)
"""
